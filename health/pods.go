package health

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// hopeless are the reasons of a waiting container that time does not mend. ErrImagePull is not among them: the kubelet
// tries again, and says ImagePullBackOff when that failed too.
var hopeless = map[string]bool{
	"ImagePullBackOff": true, "InvalidImageName": true, "ErrImageNeverPull": true,
	"CreateContainerConfigError": true, "CreateContainerError": true, "RunContainerError": true,
}

// recent is how young a crash must be to count against a container that runs at the moment.
const recent = 10 * time.Minute

// pods looks for a pod of the applied template that will not come up. Pods of an older template do not count.
func (j *Judge) pods(live *unstructured.Unstructured, want Expectation, w World) *PodFailure {
	if w == nil || !observed(live) {
		return nil
	}
	tolerance := j.rules.CrashTolerance
	if want.First {
		tolerance = max(tolerance, j.rules.FirstCrashTolerance)
	}
	for _, pod := range ofTemplate(live, w) {
		if pod.DeletionTimestamp != nil {
			continue
		}
		if f := j.failure(pod, tolerance); f != nil {
			f.Namespace, f.Name = pod.Namespace, pod.Name
			f.Message = oneLine(f.Message)
			return f
		}
	}
	return nil
}

// observed reports that the workload's controller has seen the newest template: before that,
// what it says of revisions, and so of pods, is about the old one.
func observed(live *unstructured.Unstructured) bool {
	switch live.GetKind() {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet":
		seen, _, _ := unstructured.NestedInt64(live.Object, "status", "observedGeneration")
		return seen >= live.GetGeneration()
	}
	return true
}

// ofTemplate are the pods that run what was applied.
func ofTemplate(live *unstructured.Unstructured, w World) []*corev1.Pod {
	uid, ns := live.GetUID(), live.GetNamespace()
	switch live.GroupVersionKind().GroupKind().String() {
	case "Deployment.apps":
		for _, rs := range w.ReplicaSets(ns) {
			if ownedBy(rs, uid) && rs.Annotations[revision] != "" && rs.Annotations[revision] == live.GetAnnotations()[revision] {
				return owned(w.Pods(ns), rs.UID, nil)
			}
		}
		return nil
	case "StatefulSet.apps":
		hash, _, _ := unstructured.NestedString(live.Object, "status", "updateRevision")
		return owned(w.Pods(ns), uid, func(p *corev1.Pod) bool { return hash == "" || p.Labels["controller-revision-hash"] == hash })
	case "DaemonSet.apps":
		template := live.GetAnnotations()["deprecated.daemonset.template.generation"]
		return owned(w.Pods(ns), uid, func(p *corev1.Pod) bool { return template == "" || p.Labels["pod-template-generation"] == template })
	case "ReplicaSet.apps", "Job.batch":
		return owned(w.Pods(ns), uid, nil)
	case "Pod":
		for _, p := range w.Pods(ns) {
			if p.UID == uid {
				return []*corev1.Pod{p}
			}
		}
	}
	return nil
}

// revision is by which a Deployment and the replica set of its template know each other.
const revision = "deployment.kubernetes.io/revision"

func owned(pods []*corev1.Pod, uid types.UID, and func(*corev1.Pod) bool) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range pods {
		if ownedBy(p, uid) && (and == nil || and(p)) {
			out = append(out, p)
		}
	}
	return out
}

func ownedBy(o metav1.Object, uid types.UID) bool {
	c := metav1.GetControllerOf(o)
	return c != nil && c.UID == uid
}

// failure is why a pod will not come up, or nil if it may.
func (j *Judge) failure(pod *corev1.Pod, tolerance int32) *PodFailure {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable &&
			j.now().Sub(c.LastTransitionTime.Time) > j.rules.PendingGrace {
			return &PodFailure{Reason: "Unschedulable", Container: "-", Message: c.Message}
		}
	}
	statuses := append(append([]corev1.ContainerStatus{}, pod.Status.InitContainerStatuses...), pod.Status.ContainerStatuses...)
	for i := range statuses {
		if f := j.container(&statuses[i], tolerance); f != nil {
			return f
		}
	}
	return nil
}

func (j *Judge) container(c *corev1.ContainerStatus, tolerance int32) *PodFailure {
	f := &PodFailure{Container: c.Name, Restarts: c.RestartCount}
	if w := c.State.Waiting; w != nil && hopeless[w.Reason] {
		f.Reason, f.Message = w.Reason, w.Message
		return f
	}
	if c.Ready || c.RestartCount <= tolerance {
		return nil
	}
	last := c.LastTerminationState.Terminated
	if t := c.State.Terminated; t != nil {
		last = t
	}
	if last == nil || last.ExitCode == 0 && last.Reason != "OOMKilled" {
		return nil
	}
	if c.State.Running != nil && j.now().Sub(last.FinishedAt.Time) > recent {
		return nil // it crashed long ago and only waits for its readiness now
	}
	f.Reason, f.ExitCode, f.Message = "CrashLoopBackOff", last.ExitCode, last.Message
	if last.Reason == "OOMKilled" {
		f.Reason = "OOMKilled"
	}
	return f
}

const messageLength = 300 // runes

// oneLine makes a termination message fit into a line.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > messageLength {
		return "…" + string(r[len(r)-messageLength:]) // the end says why
	}
	return s
}
