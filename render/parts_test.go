package render

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nexus-platform/reconciler/object"
)

// Large sets are built in parts. These say that nobody can tell.
func TestASetBuiltInPartsIsTheOneThatKustomizeBuilds(t *testing.T) {
	large := site(500, 10, "")
	inBases := files{"app/kustomization.yaml": "resources: [../a, ../b, ../c]\nlabels: [{pairs: {all: x}, includeSelectors: true}]\nimages: [{name: example.com/i, newTag: '7'}]\n" +
		"configMapGenerator:\n- {name: o0, namespace: ns-0, behavior: merge, literals: [more=x]}\n"}
	for i, base := range []string{"a", "b", "c"} {
		lines := map[string]string{
			"a": "commonLabels: {base: a}\nconfigMapGenerator:\n- {name: o0, namespace: ns-0, literals: [a=b]}\n- {name: other, namespace: ns-1, literals: [c=d]}\n",
			"b": "commonAnnotations: {base: b}\nsecretGenerator:\n- {name: o8, namespace: ns-4, literals: [a=b], options: {labels: {l: m}}}\n",
			"c": "",
		}[base]
		for name, content := range site(600, 25, lines) {
			if !strings.HasSuffix(name, "kustomization.yaml") {
				content = strings.ReplaceAll(content, "name: o", "name: "+base+"-o")
				// References to what generators make, which gets a new name.
				content = strings.ReplaceAll(content, "name: "+base+"-o0\n        - secretRef:\n            name: "+base+"-o8", "name: o0\n        - secretRef:\n            name: o8")
			}
			inBases[base+strings.TrimPrefix(name, "app")] = content
		}
		_ = i
	}
	lists := files{"app/kustomization.yaml": "resources: [list.yaml, one.yaml]\n", "app/list.yaml": "apiVersion: v1\nkind: List\nitems:\n"}
	for i := range 450 {
		lists["app/list.yaml"] += fmt.Sprintf("- {apiVersion: v1, kind: ConfigMap, metadata: {name: l%d}}\n", i)
	}
	lists["app/one.yaml"] = "# comment\n---\n" + configMap("one") + "---\n---\n# nothing\n---\n" + configMap("two")
	for name, f := range map[string]files{
		"many small files":                       large,
		"one large file":                         site(900, 900, ""),
		"bases, labels, images and generators":   inBases,
		"a list that cannot be cut":              lists,
		"with a namespace, so at once":           site(450, 10, "namespace: other\nnamePrefix: x-\nnameSuffix: -y\n"),
		"a file that is read as data too":        site(450, 10, "configMapGenerator: [{name: g, files: [f0.yaml]}]\n"),
		"objects that are kept out":              site(450, 10, "").with(files{"app/f0.yaml": strings.ReplaceAll(site(10, 10, "")["app/f0.yaml"], "  labels:", "  annotations: {config.kubernetes.io/local-config: 'true'}\n  labels:")}),
		"annotations that claim an earlier name": site(450, 10, "").with(files{"app/f0.yaml": strings.ReplaceAll(site(10, 10, "")["app/f0.yaml"], "  labels:", "  annotations: {internal.config.kubernetes.io/previousNames: a, internal.config.kubernetes.io/previousNamespaces: b, internal.config.kubernetes.io/previousKinds: ConfigMap}\n  labels:")}),
	} {
		t.Run(name, func(t *testing.T) {
			tree := f.tree(t).(*dirTree)
			got, err := (&Renderer{Command: childCommand}).Render(t.Context(), Request{Tree: tree, Path: "app"})
			if err != nil {
				t.Fatal(err)
			}
			want := plainKustomize(t, tree.dir+"/app")
			if len(want) != got.Set.Len() {
				t.Errorf("%d objects, not %d", got.Set.Len(), len(want))
			}
			for _, u := range want {
				o, ok := got.Set.Get(object.RefOf(u))
				if !ok {
					t.Errorf("%s is missing", object.RefOf(u))
					continue
				}
				if diff := cmp.Diff(u.Object, o.Body.Object); diff != "" {
					t.Fatalf("%s (-kustomize +render)\n%s", o.Ref, diff)
				}
				if o.Origin.Path == "" {
					t.Errorf("%s comes from nowhere", o.Ref)
				}
			}
		})
	}
}

func TestTwoOfOneObjectFarApartAreFound(t *testing.T) {
	f := site(900, 10, "").with(files{"app/last.yaml": strings.Split(site(1, 1, "")["app/f0.yaml"], "---\n")[0]})
	f["app/kustomization.yaml"] += "- last.yaml\n"
	mustRefuse[*BuildError](t, f, "already registered id", "o0")
	twice := site(900, 10, "")
	twice["app/kustomization.yaml"] += "- f0.yaml\n"
	mustRefuse[*BuildError](t, twice, "already registered id")
}

func TestAnErrorInAPartIsTheOneOfTheWhole(t *testing.T) {
	mustRefuse[*BuildError](t, site(900, 10, "configMapGenerator: [{name: nobody, behavior: merge, literals: [a=b]}]\n"), "nobody", "does not exist; cannot merge or replace")
}
