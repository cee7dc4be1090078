package fields

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	if text == "" {
		return nil
	}
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestDiff(t *testing.T) {
	cm := func(data string) string {
		return "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: " + data + "}"
	}
	secret := func(rest string) string {
		return "{apiVersion: v1, kind: Secret, metadata: {name: a}, " + rest + "}"
	}
	pod := func(spec string) string {
		return "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: " + spec + "}"
	}
	for _, tc := range []struct{ name, old, new, want string }{
		{"the same is no change", cm("{a: b}"), cm("{a: b}"), ""},
		{"status, bookkeeping and our marks do not count", cm("{a: b}"),
			`{apiVersion: v1, kind: ConfigMap, metadata: {name: a, uid: u, resourceVersion: "7", generation: 2, labels: {nexus.dev/environment: e}, annotations: {nexus.dev/born: e/1}, managedFields: [{manager: m}]}, data: {a: b}, status: {x: 1}}`, ""},
		{"values come, go and change", cm("{a: b, c: d}"), cm("{a: x, e: f}"), "data.a: b -> x\ndata.c: - d\ndata.e: + f"},
		{"an empty value is seen", cm("{}"), cm(`{a: ""}`), `data.a: + ""`},
		{"names with dots stand in brackets", cm(`{a.yaml: "1"}`), cm(`{a.yaml: "2"}`), "data[a.yaml]: 1 -> 2"},
		{"items are told apart by name", pod("{containers: [{name: a, image: x}, {name: b, image: y}]}"), pod("{containers: [{name: a, image: z}, {name: b, image: y}]}"),
			"spec.containers[name=a].image: x -> z"},
		{"an item in the middle goes", pod("{containers: [{name: a}, {name: b}, {name: c}]}"), pod("{containers: [{name: a}, {name: c}]}"), "spec.containers[name=b].name: - b"},
		{"the order of items counts", pod("{containers: [{name: a}, {name: b}]}"), pod("{containers: [{name: b}, {name: a}]}"), "spec.containers (order): a, b -> b, a"},
		{"items without a key are told apart by index", pod("{rules: [{verbs: [get]}, {verbs: [list]}]}"), pod("{rules: [{verbs: [get]}, {verbs: [watch]}]}"),
			`spec.rules[1].verbs: ["list"] -> ["watch"]`},
		{"a list of scalars is one value", pod("{args: [a, b]}"), pod("{args: [a, c]}"), `spec.args: ["a","b"] -> ["a","c"]`},
		{"a value changes its type", pod("{x: 1}"), pod("{x: {z: true}}"), `spec.x: 1 -> {"z":true}`},
		{"long texts show where they part", cm("{a: " + strings.Repeat("x", 300) + "one}"), cm("{a: " + strings.Repeat("x", 300) + "two}"),
			"data.a: …" + strings.Repeat("x", 33) + "one -> …" + strings.Repeat("x", 33) + "two"},
		{"many lines become one", cm(`{a: "1\n2"}`), cm(`{a: "1\n3"}`), `data.a: 1\n2 -> 1\n3`},
		{"a creation lists all that is declared", "", cm("{a: b}"), "apiVersion: + v1\ndata.a: + b\nkind: + ConfigMap\nmetadata.name: + a"},

		{"a Secret shows keys only", secret("data: {a: Q0FOQVJZ, b: Q0FOQVJZ, c: CANARY}"), secret("data: {a: Q0FOQVJZ, b: Q0FOQVJZMg==, d: CANARY}"),
			"data.b: *** -> *** (changed)\ndata.c: - ***\ndata.d: + ***"},
		{"stringData is masked too", secret("stringData: {a: CANARY}"), secret("stringData: {a: CANARY2}"), "stringData.a: *** -> *** (changed)"},
		{"a Secret's type is shown", secret("type: a"), secret("type: b"), "type: a -> b"},
		{"what kubectl repeats of the object is not shown", cm("{}"),
			`{apiVersion: v1, kind: ConfigMap, metadata: {name: a, annotations: {kubectl.kubernetes.io/last-applied-configuration: CANARY}}, data: {}}`, ""},
		{"environment variables that tell by their name are masked", pod("{containers: [{name: a, env: [{name: DB_PASSWORD, value: CANARY}, {name: MODE, value: a}]}]}"),
			pod("{containers: [{name: a, env: [{name: DB_PASSWORD, value: CANARY2}, {name: MODE, value: b}]}]}"),
			"spec.containers[name=a].env[name=DB_PASSWORD].value: *** -> *** (changed)\nspec.containers[name=a].env[name=MODE].value: a -> b"},
		{"a new container's password is masked", pod("{containers: [{name: a}]}"), pod("{containers: [{name: a}, {name: b, env: [{name: API_KEY, value: CANARY}]}]}"),
			"spec.containers[name=b].env[name=API_KEY].name: + API_KEY\nspec.containers[name=b].env[name=API_KEY].value: + ***\nspec.containers[name=b].name: + b"},
		{"a reference to a Secret is shown", pod("{containers: [{name: a, env: [{name: DB_PASSWORD, valueFrom: {secretKeyRef: {name: x, key: y}}}]}]}"),
			pod("{containers: [{name: a, env: [{name: DB_PASSWORD, valueFrom: {secretKeyRef: {name: z, key: y}}}]}]}"),
			"spec.containers[name=a].env[name=DB_PASSWORD].valueFrom.secretKeyRef.name: x -> z"},
		{"passwords in the data of a ConfigMap are masked", cm("{db-password: CANARY, url: 'postgres://u:CANARY@h/d'}"), cm("{db-password: CANARY2, url: 'postgres://u:CANARY2@h/e'}"),
			"data.db-password: *** -> *** (changed)\ndata.url: postgres://***@h/d -> postgres://***@h/e"},
		{"passwords in the text of a ConfigMap are masked", cm(`{f: "mode=a\npassword=CANARY"}`), cm(`{f: "mode=b\npassword=CANARY"}`), `data.f: mode=a\npassword=*** -> mode=b\npassword=***`},
		{"a change that only touches a masked part is told", cm("{url: 'postgres://u:CANARY@h/d'}"), cm("{url: 'postgres://u:CANARY2@h/d'}"),
			"data.url: postgres://***@h/d -> postgres://***@h/d (changed)"},
		{"passwords in arguments are masked", pod("{args: [--token=CANARY, a]}"), pod("{args: [--token=CANARY, b]}"), `spec.args: ["--token=***","a"] -> ["--token=***","b"]`},
		{"a password of a custom resource is masked", "{apiVersion: x.dev/v1, kind: X, metadata: {name: a}, spec: {adminPassword: CANARY}}", "{apiVersion: x.dev/v1, kind: X, metadata: {name: a}, spec: {adminPassword: CANARY2}}",
			"spec.adminPassword: *** -> *** (changed)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var lines []string
			for _, c := range Diff(parse(t, tc.old), parse(t, tc.new)) {
				lines = append(lines, c.String())
			}
			got := strings.Join(lines, "\n")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if strings.Contains(got, "CANARY") || strings.Contains(got, "Q0FOQVJZ") {
				t.Errorf("a secret leaked:\n%s", got)
			}
		})
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"nothing to hide": "nothing to hide",
		"dial postgres://app:CANARY@db:5432/x: refused": "dial postgres://***@db:5432/x: refused",
		`password: "CANARY CANARY", user: "u"`:          `password: ***, user: "u"`,
		"Authorization: Bearer CANARYCANARY":            "Authorization: Bearer ***",
		"-----BEGIN RSA PRIVATE KEY-----\nCANARY\n":     "***",
		"secretName: shop-tls":                          "secretName: shop-tls",
		`PASSWORD=CANARY; MODE=x`:                       `PASSWORD=***; MODE=x`,
	} {
		if got := Redact(in); got != want {
			t.Errorf("Redact(%q) = %q, not %q", in, got, want)
		}
	}
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte(`{"spec":{"a":[{"name":"x"}]}}`), []byte(`{"spec":{"a":[1,{"name":"y"}]}}`))
	f.Add([]byte(`{"metadata":{"labels":[]}}`), []byte(`{"metadata":3,"data":{"a":null}}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		old, new := &unstructured.Unstructured{}, &unstructured.Unstructured{}
		if yaml.Unmarshal(a, &old.Object) != nil || yaml.Unmarshal(b, &new.Object) != nil || old.Object == nil || new.Object == nil {
			return
		}
		if got := Diff(old, old); len(got) > 0 {
			t.Errorf("an object differs from itself: %v", got)
		}
		Diff(old, new)
	})
}
