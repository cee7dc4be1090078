package daemon

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/e2e/cluster"
)

// kubectl runs kubectl as a person would, in the tenant's namespace.
func (tn *tenant) kubectl(args ...string) {
	tn.t.Helper()
	dir := tn.t.TempDir()
	if err := cluster.Kubectl(tn.t.Context(), dir); err != nil {
		tn.t.Fatal(err)
	}
	cmd := exec.CommandContext(tn.t.Context(), dir+"/kubectl", append(args, "-n", tn.ns)...)
	cmd.Env = environment(dir, "KUBECONFIG="+tn.Kubeconfig, "KUBE_EDITOR=sed -i s/key:.*/key:\\ edited/")
	if out, err := cmd.CombinedOutput(); err != nil {
		tn.t.Fatalf("kubectl %v: %v\n%s", args, err, out)
	}
}

// drift waits until drift of an object is recorded for which ok holds.
func (tn *tenant) drift(object string, ok func(v1alpha1.Drift) bool) v1alpha1.Drift {
	tn.t.Helper()
	var found v1alpha1.Drift
	until(tn.t, "drift of "+object, func() bool {
		i := slices.IndexFunc(tn.env().Status.Drift, func(d v1alpha1.Drift) bool { return d.Object == object && ok(d) })
		if i >= 0 {
			found = tn.env().Status.Drift[i]
		}
		return i >= 0
	}, tn.state, func() string {
		b, err := json.MarshalIndent(tn.env().Status.Drift, "", " ")
		return fmt.Sprint(string(b), err)
	})
	return found
}

func TestWhatPeopleDoWithKubectlIsAttributedAndHealed(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	labelled := strings.Replace(configMap("labelled", "1"), "  name: labelled\n", "  name: labelled\n  labels: {tier: front}\n", 1)
	commit := tn.push("one", files{"a.yaml": configMap("a", "1"), "b.yaml": configMap("b", "1"), "l.yaml": labelled, "app.yaml": app("web", "1", 2)})
	tn.follow()
	tn.rest(commit)
	any := func(v1alpha1.Drift) bool { return true }

	began := time.Now().Truncate(time.Second)
	tn.kubectl("scale", "deployment/web", "--replicas=5")
	d := tn.drift("Deployment/"+tn.ns+"/web", any)
	if !strings.HasPrefix(d.Manager, "kubectl") || !slices.Contains(d.Fields, "spec.replicas: 2 -> 5") || d.Action != "healed" || d.At.Time.Before(began) {
		t.Errorf("kubectl scale: %+v", d)
	}
	until(t, "the replicas to be set back", func() bool {
		web, err := tn.kube.AppsV1().Deployments(tn.ns).Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && *web.Spec.Replicas == 2
	})

	tn.kubectl("edit", "configmap/a")
	d = tn.drift("ConfigMap/"+tn.ns+"/a", any)
	if d.Manager != "kubectl-edit" || d.Verb != "edited" || !strings.Contains(strings.Join(d.Fields, " "), "data.key: 1 -> edited") {
		t.Errorf("kubectl edit: %+v", d)
	}
	until(t, "the edit to be healed", func() bool { return tn.value("a") == "1" })

	tn.kubectl("delete", "configmap/b")
	if d = tn.drift("ConfigMap/"+tn.ns+"/b", any); d.Verb != "deleted" {
		t.Errorf("kubectl delete: %+v", d)
	}
	until(t, "the deleted object to be there again", func() bool { return tn.value("b") == "1" })

	tn.kubectl("label", "configmap/labelled", "tier-")
	d = tn.drift("ConfigMap/"+tn.ns+"/labelled", any)
	if !strings.Contains(strings.Join(d.Fields, " "), "tier") {
		t.Errorf("kubectl label: %+v", d)
	}
	until(t, "the label to be back", func() bool {
		cm, err := tn.kube.CoreV1().ConfigMaps(tn.ns).Get(t.Context(), "labelled", metav1.GetOptions{})
		return err == nil && cm.Labels["tier"] == "front"
	})
	if n := len(tn.releases()); n != 1 {
		t.Errorf("drift made %d releases", n)
	}
	if notes := tn.events("Drift"); len(notes) < 4 {
		t.Errorf("events: %q", notes)
	}
}

func TestDriftIsReportedOrIgnoredWhereThePolicySaysSo(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	annotated := strings.Replace(configMap("reported", "1"), "  name: reported\n", "  name: reported\n  annotations: {nexus.dev/drift: report}\n", 1)
	ignored := strings.Replace(configMap("ignored", "1"), "  name: ignored\n", "  name: ignored\n  annotations: {nexus.dev/ignore-fields: /data/key}\n", 1)
	policy := quick + "  drift:\n    rules:\n      - {kind: ConfigMap, name: ruled, fields: [/data/key]}\n"
	commit := tn.push("one", files{
		"release.yaml": policy, "a.yaml": configMap("healed", "1"), "r.yaml": annotated, "i.yaml": ignored, "u.yaml": configMap("ruled", "1"),
	})
	tn.follow()
	tn.rest(commit)
	for _, name := range []string{"reported", "ignored", "ruled", "healed"} {
		tn.kubectl("patch", "configmap/"+name, "--type=merge", `-p={"data":{"key":"hand"}}`)
	}
	tn.drift("ConfigMap/"+tn.ns+"/healed", func(d v1alpha1.Drift) bool { return d.Action == "healed" })
	tn.drift("ConfigMap/"+tn.ns+"/reported", func(d v1alpha1.Drift) bool { return d.Action == "reported" })
	until(t, "the heal", func() bool { return tn.value("healed") == "1" })
	for _, name := range []string{"reported", "ignored", "ruled"} {
		if got := tn.value(name); got != "hand" {
			t.Errorf("%s is %s: it was written", name, got)
		}
	}
	for _, d := range tn.env().Status.Drift {
		if strings.HasSuffix(d.Object, "/ignored") || strings.HasSuffix(d.Object, "/ruled") {
			t.Errorf("recorded: %+v", d)
		}
	}
	if got := condition(tn.env(), v1alpha1.ConditionDrifted); !strings.HasPrefix(got, "True") || !strings.Contains(got, "reported") {
		t.Errorf("Drifted is %s", got)
	}
	tn.verb(2, []string{"reported"}, "drift", envName)
	tn.kubectl("patch", "configmap/reported", "--type=merge", `-p={"data":{"key":"1"}}`)
	until(t, "the drift to be over", func() bool { return !strings.HasPrefix(condition(tn.env(), v1alpha1.ConditionDrifted), "True") })

	// Ignored fields stay as they are when something else of the object is released.
	ignored2 := strings.Replace(ignored, "\ndata:\n", "\ndata:\n  more: x\n", 1)
	tn.release("two", files{
		"release.yaml": policy, "a.yaml": configMap("healed", "1"), "r.yaml": annotated, "i.yaml": ignored2, "u.yaml": configMap("ruled", "1"),
	}, v1alpha1.Succeeded)
	if got := tn.value("ignored"); got != "hand" {
		t.Errorf("the ignored field was set to %s", got)
	}
}

func TestTwoWritersThatFightAreReportedAndNotFedForEver(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	commit := tn.push("one", files{"a.yaml": configMap("a", "1")})
	tn.follow()
	tn.rest(commit)
	cms := tn.kube.CoreV1().ConfigMaps(tn.ns)
	fights := 0
	for i := range 20 {
		_, err := cms.Patch(t.Context(), "a", types.MergePatchType, fmt.Appendf(nil, `{"data":{"key":"fight %d"}}`, i), metav1.PatchOptions{FieldManager: "other"})
		if err != nil {
			t.Fatal(err)
		}
		flapping := false
		until(t, "a heal, or a report", func() bool {
			flapping = slices.ContainsFunc(tn.env().Status.Drift, func(d v1alpha1.Drift) bool { return d.Action == "flapping" })
			return flapping || tn.value("a") == "1"
		}, tn.state)
		if flapping {
			fights = i
			break
		}
	}
	if fights < 2 || fights > 5 {
		t.Errorf("flapping was reported after %d heals; want after three", fights)
	}
	was, err := cms.Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	next := tn.push("another object", files{"a.yaml": configMap("a", "1"), "b.yaml": configMap("b", "1")})
	tn.rest(next)
	if notes := tn.events("Drift"); len(notes) > 8 {
		t.Errorf("%d events of one fight", len(notes))
	}
	now, err := cms.Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("from %s to %s: %s", was.ResourceVersion, now.ResourceVersion, now.Data["key"])
}

func TestWhatAnAutoscalerScalesAndFieldsThatGitNeverSetAreNoDrift(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	hpa := `apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, minReplicas: 1, maxReplicas: 9}
`
	commit := tn.push("one", files{"app.yaml": app("web", "1", 1), "hpa.yaml": hpa, "a.yaml": configMap("a", "1")})
	tn.follow()
	tn.rest(commit)
	tn.kubectl("scale", "deployment/web", "--replicas=3")
	tn.kubectl("annotate", "configmap/a", "somebody=else")
	tn.kubectl("patch", "configmap/a", "--type=merge", `-p={"data":{"more":"theirs"}}`)
	// Something that is drift comes last: once it is healed, what came before it was looked at.
	tn.kubectl("patch", "configmap/a", "--type=merge", `-p={"data":{"key":"hand"}}`)
	tn.drift("ConfigMap/"+tn.ns+"/a", func(d v1alpha1.Drift) bool { return strings.Contains(strings.Join(d.Fields, " "), "data.key") })
	until(t, "the heal", func() bool { return tn.value("a") == "1" })
	for _, d := range tn.env().Status.Drift {
		if strings.Contains(d.Object, "Deployment") || strings.Contains(strings.Join(d.Fields, " "), "more") || strings.Contains(strings.Join(d.Fields, " "), "somebody") {
			t.Errorf("recorded as drift: %+v", d)
		}
	}
	cm, err := tn.kube.CoreV1().ConfigMaps(tn.ns).Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil || cm.Data["more"] != "theirs" || cm.Annotations["somebody"] != "else" {
		t.Errorf("what others set was taken away: %v %v", cm, err)
	}
	web, err := tn.kube.AppsV1().Deployments(tn.ns).Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil || *web.Spec.Replicas != 3 {
		t.Errorf("the replicas are %d (%v); the autoscaler has them", *web.Spec.Replicas, err)
	}
}
