package kube

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
	"github.com/nexus-platform/reconciler/kube/cache"
	"github.com/nexus-platform/reconciler/object"
)

// driftText has what is hard to compare: quantities that are normalised, defaults in empty maps, sets, items told apart by key.
const driftText = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NS, labels: {team: shop}, annotations: {note: hi}}
spec:
  replicas: 1
  selector: {matchLabels: {app: a}}
  strategy: {}
  template:
    metadata: {labels: {app: a}}
    spec:
      securityContext: {}
      containers:
      - name: app
        image: one
        resources: {requests: {cpu: 1000m, memory: 1024Mi}}
        env: [{name: A, value: "1"}, {name: DB_PASSWORD, value: CANARY}]
        ports: [{containerPort: 80}]
        volumeMounts: [{name: tmp, mountPath: /tmp}]
      volumes: [{name: tmp, emptyDir: {}}]
`

func TestDriftNamesTheFieldsAndWhoChangedThem(t *testing.T) {
	for _, tc := range []struct {
		name        string
		patch       string
		kind        types.PatchType
		subresource []string
		ignore      []string
		want        string // manager operation: changes; empty for no drift
	}{
		{name: "nothing happened", patch: `{}`},
		{name: "the status changed", patch: `{"status":{"observedGeneration":99}}`, subresource: []string{"status"}},
		{name: "somebody added fields that we never set", patch: `{"metadata":{"labels":{"x":"y"}},"spec":{"minReadySeconds":3,"template":{"spec":{"terminationGracePeriodSeconds":5}}}}`},
		{name: "somebody filled in what we left empty", patch: `{"spec":{"strategy":{"rollingUpdate":{"maxSurge":3}}}}`},
		{name: "somebody added an item to a list", patch: `{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"x"}]}}}}`, kind: types.StrategicMergePatchType},
		{name: "an image was edited", patch: `{"spec":{"template":{"spec":{"containers":[{"name":"app","image":"two"}]}}}}`, kind: types.StrategicMergePatchType,
			want: `kubectl-edit Update: spec.template.spec.containers[name=app].image: one -> two`},
		{name: "a password was edited", patch: `{"spec":{"template":{"spec":{"containers":[{"name":"app","env":[{"name":"DB_PASSWORD","value":"CANARY2"}]}]}}}}`, kind: types.StrategicMergePatchType,
			want: `kubectl-edit Update: spec.template.spec.containers[name=app].env[name=DB_PASSWORD].value: *** -> *** (changed)`},
		{name: "a label was removed", patch: `{"metadata":{"labels":{"team":null}}}`,
			want: `unknown : metadata.labels.team: - shop`},
		{name: "a container was replaced", patch: `{"spec":{"template":{"spec":{"containers":[{"name":"app","image":"one"}]}}}}`, kind: types.MergePatchType,
			want: `unknown : spec.template.spec.containers[name=app].env[name=A].name: - A
spec.template.spec.containers[name=app].env[name=A].value: - 1
spec.template.spec.containers[name=app].env[name=DB_PASSWORD].name: - DB_PASSWORD
spec.template.spec.containers[name=app].env[name=DB_PASSWORD].value: - ***
spec.template.spec.containers[name=app].ports[containerPort=80,protocol=TCP].containerPort: - 80
spec.template.spec.containers[name=app].resources.requests.cpu: - 1000m
spec.template.spec.containers[name=app].resources.requests.memory: - 1024Mi
spec.template.spec.containers[name=app].volumeMounts[mountPath=/tmp].mountPath: - /tmp
spec.template.spec.containers[name=app].volumeMounts[mountPath=/tmp].name: - tmp`},
		{name: "an autoscaler scaled", patch: `{"spec":{"replicas":2}}`, subresource: []string{"scale"},
			want: `kubectl-edit Update/scale: spec.replicas: 1 -> 2`},
		{name: "an autoscaler scaled what belongs to it", patch: `{"spec":{"replicas":2}}`, subresource: []string{"scale"}, ignore: []string{"/spec/replicas"}},
		{name: "one of two edits is ignored", patch: `{"metadata":{"annotations":{"note":"ho"}},"spec":{"replicas":2}}`, ignore: []string{"/spec/replicas"},
			want: `kubectl-edit Update: metadata.annotations.note: hi -> ho`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := open(t, "env-drift", nil)
			want := manifest(t, strings.ReplaceAll(driftText, "NS", clustertest.Namespace(t)))
			a, err := c.Apply(deadline(t), want, Pre{Create: true})
			if err != nil {
				t.Fatal(err)
			}
			if tc.kind == "" {
				tc.kind = types.MergePatchType
			}
			if _, err := resource(t, c, want).Patch(t.Context(), "web", tc.kind, []byte(tc.patch), metav1.PatchOptions{FieldManager: "kubectl-edit"}, tc.subresource...); err != nil {
				t.Fatal(err)
			}
			live, err := cache.NewLive(read(t, c, want))
			if err != nil {
				t.Fatal(err)
			}
			report, err := c.Drift(live, a.Record, want, tc.ignore)
			if err != nil {
				t.Fatal(err)
			}
			if got := driftStory(report); got != tc.want {
				t.Errorf("drift is\n%s\nnot\n%s", got, tc.want)
			}
			if tc.want == "" {
				return
			}
			healed, err := c.Apply(deadline(t), want, PreOf(live.Object(), true))
			if err != nil {
				t.Fatal(err)
			}
			if healed.Record.Live != a.Record.Live {
				t.Error("after the repair the digest is another one")
			}
			if live, err = cache.NewLive(healed.Object); err != nil {
				t.Fatal(err)
			}
			if report, err := c.Drift(live, a.Record, want, nil); err != nil || report != nil {
				t.Errorf("after the repair drift is %s, %v", driftStory(report), err)
			}
		})
	}
}

func driftStory(r *DriftReport) string {
	if r == nil {
		return ""
	}
	var lines []string
	for _, f := range r.Fields {
		lines = append(lines, f.String())
	}
	return r.Manager + " " + r.Operation + ": " + strings.Join(lines, "\n")
}

func TestAnAutoscalerKeepsTheReplicasThatItSet(t *testing.T) {
	c, _ := open(t, "env-strip", nil)
	ns := clustertest.Namespace(t)
	body := manifest(t, strings.ReplaceAll(driftText, "NS", ns))
	ignored := []string{"/spec/replicas", "/spec/absent"}
	a, err := c.Apply(deadline(t), Strip(body, ignored, nil), Pre{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	replicas := func(u map[string]any) any {
		v, _ := u["spec"].(map[string]any)
		return v["replicas"]
	}
	scale := func(n string) {
		if _, err := resource(t, c, body).Patch(t.Context(), "web", types.MergePatchType, []byte(`{"spec":{"replicas":`+n+`}}`), metav1.PatchOptions{FieldManager: "kube-controller-manager"}, "scale"); err != nil {
			t.Fatal(err)
		}
	}
	// Nobody else owns the field yet: it is applied as it is.
	stripped := Strip(body, ignored, a.Object)
	if got := replicas(stripped.Object); got != int64(1) {
		t.Errorf("before the autoscaler acts, replicas are applied as %v", got)
	}
	for _, n := range []string{"3", "4"} {
		scale(n)
		live := read(t, c, body)
		stripped = Strip(body, ignored, live)
		if got := replicas(stripped.Object); got != nil {
			t.Errorf("when the autoscaler owns them, replicas are applied as %v", got)
		}
		again, err := c.Apply(deadline(t), stripped, PreOf(live, true))
		if err != nil {
			t.Fatal(err)
		}
		if got := replicas(again.Object.Object); got == int64(1) || got == nil {
			t.Errorf("our apply set replicas to %v", got)
		}
	}
	if got := replicas(body.Object); got != int64(1) {
		t.Errorf("Strip changed its argument: %v", got)
	}
}

func TestTheRecordOfAnApplyIsTheSameHoweverTheObjectIsRead(t *testing.T) {
	c, _ := open(t, "env-record", func(c *Cluster) { c.Namespaces = []string{"default"} })
	ns := clustertest.Namespace(t)
	c.Namespaces = []string{ns}
	if err := c.Watch(deadline(t), []schema.GroupVersionKind{deploymentKind}); err != nil {
		t.Fatal(err)
	}
	a := apply(t, c, strings.ReplaceAll(driftText, "NS", ns))
	if strings.Contains(string(a.Record.Fields), object.Domain) {
		t.Errorf("our marks are in the field set: %s", a.Record.Fields)
	}
	l, _ := c.Live(a.Record.Ref)
	for _, u := range []map[string]any{a.Object.Object, read(t, c, a.Object).Object, l.Object().Object} {
		o := a.Object.DeepCopy()
		o.Object = u
		if digest, err := LiveDigest(o, a.Record.Fields); err != nil || digest != a.Record.Live {
			t.Errorf("digest %s, %v; it was %s", digest, err, a.Record.Live)
		}
	}
	again, err := c.Apply(deadline(t), manifest(t, strings.ReplaceAll(driftText, "NS", ns)), PreOf(a.Object, true))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a.Record, again.Record); diff != "" {
		t.Errorf("the record of a second apply differs:\n%s", diff)
	}
}
