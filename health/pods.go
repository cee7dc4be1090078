package health

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// withPods looks for a pod of the applied template that explains why an object is not healthy, or that will not come
// up however long one waits. Pods of an older template do not count.
func (j *Judge) withPods(v Verdict, live *unstructured.Unstructured, want Expectation, w World) Verdict {
	kind := kindOf(live)
	tolerance := int64(j.rules.CrashTolerance)
	switch {
	case kind == "Job.batch": // how often it may fail is its own affair: backoffLimit
		tolerance = math.MaxInt64
	case want.First:
		tolerance = max(tolerance, int64(j.rules.FirstCrashTolerance))
	}
	sets, pods := ofTemplate(live, w)
	var worst *trouble
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil && v.State != Failed { // of a failed Job, the pod that is being deleted tells why
			continue
		}
		if replaced(pod, kind) {
			continue
		}
		worst = worse(worst, j.trouble(pod, tolerance))
	}
	for _, rs := range sets {
		worst = worse(worst, j.uncreated(rs))
	}
	if worst == nil {
		return v
	}
	worst.Reason, worst.Message = word(worst.Reason), lastLine(worst.Message)
	why := worst.String()
	if worst.Name == "" {
		why = "its pods cannot be created: " + worst.Message
	} else {
		v.Pod = &worst.PodFailure
	}
	switch {
	case v.State == Failed:
		v.Message = join(v.Message, why)
	case worst.fatal:
		v.State, v.Reason, v.Message = Failed, worst.Reason, why
	default:
		v.Message, v.Again = join(v.Message, why), worst.again
	}
	return v
}

// trouble is what keeps a pod from coming up.
type trouble struct {
	PodFailure
	fatal bool          // for good
	again time.Duration // it will be fatal after this
}

// worse keeps the one that says more, else the first.
func worse(a, b *trouble) *trouble {
	if b.weight() > a.weight() || a.weight() == temporary && b.weight() == temporary && b.again < a.again {
		return b
	}
	return a
}

const temporary = 3 // the weight of a trouble that will be fatal after a time

func (t *trouble) weight() int {
	switch {
	case t == nil:
		return 0
	case t.fatal:
		return temporary + 1
	case t.again > 0: // the soonest, so that nobody sleeps through its end
		return temporary
	case t.Reason != notReady:
		return 2
	}
	return 1
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return strings.TrimSuffix(a, ".") + "; " + b
}

// replaced reports a pod that is over and that its controller makes anew: evicted, or on a node that shut down.
func replaced(pod *corev1.Pod, kind string) bool {
	over := pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
	return over && kind != "Job.batch" && kind != "Pod"
}

// ofTemplate are the pods that run what was applied, in order of their names, and the replica sets that make them.
func ofTemplate(live *unstructured.Unstructured, w World) ([]*appsv1.ReplicaSet, []*corev1.Pod) {
	uid, ns := live.GetUID(), live.GetNamespace()
	ofOwner := func(owner types.UID, key, value string) []*corev1.Pod {
		var pods []*corev1.Pod
		for _, p := range w.Pods(ns) {
			if ownedBy(p, owner) && (key == "" || value != "" && p.Labels[key] == value) {
				pods = append(pods, p)
			}
		}
		slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
		return pods
	}
	ofSet := func(is func(*appsv1.ReplicaSet) bool) ([]*appsv1.ReplicaSet, []*corev1.Pod) {
		for _, rs := range w.ReplicaSets(ns) {
			if ownedBy(rs, uid) && is(rs) {
				return []*appsv1.ReplicaSet{rs}, ofOwner(rs.UID, "", "")
			}
		}
		return nil, nil // not seen yet: the highest revision that is seen may be the template before
	}
	switch kindOf(live) {
	case "Deployment.apps":
		current := live.GetAnnotations()[revision]
		return ofSet(func(rs *appsv1.ReplicaSet) bool { return current != "" && rs.Annotations[revision] == current })
	case "Rollout.argoproj.io":
		hash := text(live, "status", "currentPodHash")
		return ofSet(func(rs *appsv1.ReplicaSet) bool { return hash != "" && rs.Labels["rollouts-pod-template-hash"] == hash })
	case "StatefulSet.apps":
		return nil, ofOwner(uid, appsv1.ControllerRevisionHashLabelKey, text(live, "status", "updateRevision"))
	case "DaemonSet.apps":
		return nil, ofOwner(uid, "pod-template-generation", live.GetAnnotations()[appsv1.DeprecatedTemplateGeneration])
	case "ReplicaSet.apps", "Job.batch":
		return nil, ofOwner(uid, "", "")
	case "Pod":
		pod := &corev1.Pod{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(live.Object, pod); err == nil {
			return nil, []*corev1.Pod{pod}
		}
	}
	return nil, nil
}

// revision is by which a Deployment and the replica set of its template know each other.
const revision = "deployment.kubernetes.io/revision"

func ownedBy(o metav1.Object, uid types.UID) bool {
	c := metav1.GetControllerOfNoCopy(o)
	return c != nil && c.UID == uid
}

// uncreated is a replica set whose pods the API server refuses: a quota, a policy, a missing service account.
func (j *Judge) uncreated(rs *appsv1.ReplicaSet) *trouble {
	for _, c := range rs.Status.Conditions {
		if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
			t := &trouble{PodFailure: PodFailure{Namespace: rs.Namespace, Reason: cmp.Or(c.Reason, "FailedCreate"), Message: c.Message}}
			t.fatal, t.again = j.grace(c.LastTransitionTime.Time)
			return t
		}
	}
	return nil
}

// grace reports whether something has lasted too long, and if not, how long it still may.
func (j *Judge) grace(since time.Time) (over bool, left time.Duration) {
	left = j.rules.PendingGrace - j.now().Sub(since)
	if left <= 0 {
		return true, 0
	}
	return false, min(left, j.rules.PendingGrace) // at most: the server's clock may be ahead
}
