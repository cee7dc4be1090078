package reconcile

import (
	"path"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/health"
	"github.com/nexus-platform/reconciler/object"
)

func newJudge(p *v1alpha1.ReleasePolicy, now func() time.Time) (*health.Judge, error) {
	rules := health.Rules{
		CrashTolerance:      *p.Spec.Health.CrashTolerance,
		FirstCrashTolerance: *p.Spec.Health.FirstCrashTolerance,
		PendingGrace:        p.Spec.Health.PendingGrace.Duration,
	}
	for _, rule := range p.Spec.Health.Rules {
		rules.CEL = append(rules.CEL, health.Rule{Group: rule.Group, Kind: rule.Kind, Healthy: rule.Healthy, Failed: rule.Failed, Message: rule.Message})
	}
	return health.NewJudge(rules, now)
}

// kindMatches compares a group and kind with what people write: Kind or Kind.group.
func kindMatches(written string, gk schema.GroupKind) bool {
	return written == gk.Kind || written == gk.Kind+"."+gk.Group
}

// bearsData reports kinds whose deletion loses data: they are never deleted without an explicit allowance (protocol rule 8).
func bearsData(p *v1alpha1.ReleasePolicy, gk schema.GroupKind) bool {
	switch gk.String() {
	case "PersistentVolumeClaim", "PersistentVolume", "Namespace", "CustomResourceDefinition.apiextensions.k8s.io":
		return true
	}
	if p == nil {
		return false
	}
	for _, k := range p.Spec.DataKinds {
		if kindMatches(k, gk) {
			return true
		}
	}
	return false
}

// endsItself reports a Job that is removed some time after it has ended: that it is gone is its end, not drift.
func endsItself(body *unstructured.Unstructured) bool {
	if body.GroupVersionKind().GroupKind() != (schema.GroupKind{Group: "batch", Kind: "Job"}) {
		return false
	}
	_, ends, _ := unstructured.NestedFieldNoCopy(body.Object, "spec", "ttlSecondsAfterFinished")
	return ends
}

// mayAdopt reports whether an object that exists may be taken over: by its own mark, by the policy, or because a release of this environment made it.
func mayAdopt(p *v1alpha1.ReleasePolicy, body, live *unstructured.Unstructured, environment string) bool {
	if object.Marked(body, object.AdoptAnnotation) {
		return true
	}
	if born := live.GetAnnotations()[object.BornAnnotation]; strings.HasPrefix(born, environment+"/") {
		return true
	}
	ref := object.RefOf(body)
	name := ref.Kind + "/" + ref.Name
	if ref.Namespace != "" {
		name = ref.Kind + "/" + ref.Namespace + "/" + ref.Name
	}
	for _, pattern := range p.Spec.Adopt {
		if ok, err := path.Match(pattern, name); err == nil && ok {
			return true
		}
	}
	return false
}

// driftMode says what is done about drift of an object.
func driftMode(p *v1alpha1.ReleasePolicy, body *unstructured.Unstructured) string {
	if mode := body.GetAnnotations()[object.DriftAnnotation]; mode != "" {
		return mode
	}
	ref := object.RefOf(body)
	for _, rule := range p.Spec.Drift.Rules {
		if len(rule.Fields) == 0 && ruleMatches(rule, ref) {
			return rule.Mode
		}
	}
	return p.Spec.Drift.Mode
}

func ruleMatches(rule v1alpha1.DriftRule, ref object.Ref) bool {
	return (rule.Kind == "" || kindMatches(rule.Kind, ref.GroupKind())) &&
		(rule.Namespace == "" || rule.Namespace == ref.Namespace) &&
		(rule.Name == "" || rule.Name == ref.Name)
}

// foreignFields finds, for each object of a set, the fields that legitimately belong
// to somebody else: what its annotation and the policy name, and the replicas of what an autoscaler scales.
func foreignFields(set *object.Set, p *v1alpha1.ReleasePolicy) func(object.Ref) []string {
	scaled := map[object.Ref]bool{}
	for _, o := range set.Objects {
		if o.Ref.Kind != "HorizontalPodAutoscaler" && o.Ref.Kind != "ScaledObject" {
			continue
		}
		target, _, _ := unstructured.NestedMap(o.Body.Object, "spec", "scaleTargetRef")
		kind, _ := target["kind"].(string)
		name, _ := target["name"].(string)
		version, _ := target["apiVersion"].(string)
		if kind == "" {
			kind, version = "Deployment", "apps/v1" // KEDA's default
		}
		gv, err := schema.ParseGroupVersion(version)
		if err != nil {
			continue
		}
		scaled[object.Ref{Group: gv.Group, Kind: kind, Namespace: o.Ref.Namespace, Name: name}] = true
	}
	return func(ref object.Ref) []string {
		var fields []string
		if o, ok := set.Get(ref); ok {
			for _, f := range strings.Split(o.Body.GetAnnotations()[object.IgnoreFieldsAnnotation], ",") {
				if f = strings.TrimSpace(f); f != "" {
					fields = append(fields, f)
				}
			}
		}
		for _, rule := range p.Spec.Drift.Rules {
			if ruleMatches(rule, ref) {
				fields = append(fields, rule.Fields...)
			}
		}
		if scaled[ref] {
			fields = append(fields, "/spec/replicas")
		}
		return fields
	}
}
