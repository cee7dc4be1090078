package health

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// hopeless are the reasons of a waiting container that time does not mend. ErrImagePull is not among them: the kubelet
// tries again, and says ImagePullBackOff when that failed too.
var hopeless = map[string]bool{
	"ImagePullBackOff": true, "InvalidImageName": true, "ErrImageNeverPull": true, "SignatureValidationFailed": true,
	"CreateContainerConfigError": true, "CreateContainerError": true, "RunContainerError": true,
}

// ordinary are the reasons of a waiting container that say nothing.
var ordinary = map[string]bool{"": true, "ContainerCreating": true, "PodInitializing": true}

const notReady = "NotReady"

// recent is how young a crash must be to count against a container that runs again, and how long a run must last for its crash to
// be the first of a new series. The kubelet forgets crashes after the same time.
const recent = 10 * time.Minute

// trouble is what keeps a pod from coming up, or nil.
func (j *Judge) trouble(pod *corev1.Pod, tolerance int64) *trouble {
	worst := j.unschedulable(pod)
	stays := pod.Spec.RestartPolicy == corev1.RestartPolicyAlways || pod.Spec.RestartPolicy == ""
	sidecars := map[string]bool{}
	for _, c := range pod.Spec.InitContainers {
		sidecars[c.Name] = c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	}
	for i := range pod.Status.InitContainerStatuses {
		c := &pod.Status.InitContainerStatuses[i]
		worst = worse(worst, j.container(c, sidecars[c.Name], tolerance))
	}
	for i := range pod.Status.ContainerStatuses {
		worst = worse(worst, j.container(&pod.Status.ContainerStatuses[i], stays, tolerance))
	}
	if worst != nil {
		worst.Namespace, worst.Name = pod.Namespace, pod.Name
	}
	return worst
}

func (j *Judge) unschedulable(pod *corev1.Pod) *trouble {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			t := &trouble{PodFailure: PodFailure{Reason: c.Reason, Message: c.Message}}
			t.fatal, t.again = j.grace(c.LastTransitionTime.Time)
			return t
		}
	}
	return nil
}

// container says what is wrong with a container. One that stays must never end; the others do their work and exit with 0.
func (j *Judge) container(c *corev1.ContainerStatus, stays bool, tolerance int64) *trouble {
	t := &trouble{PodFailure: PodFailure{Container: c.Name, RestartCount: c.RestartCount}}
	down := c.State.Terminated != nil
	if w := c.State.Waiting; w != nil {
		t.Reason, t.Message = w.Reason, w.Message
		switch {
		case hopeless[w.Reason]:
			t.fatal = true
			return t
		case ordinary[w.Reason]:
			return nil
		case w.Reason != "CrashLoopBackOff":
			return t
		}
		down = true
	}
	last := c.State.Terminated
	if last == nil {
		last, t.Previous = c.LastTerminationState.Terminated, true
	}
	crashes := int64(c.RestartCount)
	switch {
	case c.State.Terminated != nil && !stays && last.ExitCode == 0:
		return nil // it has done its work
	case down:
		crashes++
	case c.Ready || c.State.Running == nil:
		return nil
	case last == nil || last.ExitCode == 0 || j.now().Sub(last.FinishedAt.Time) > recent:
		if !stays {
			return nil // it is at its work
		}
		t.Reason, t.Previous = notReady, false // not for a crash
		return t
	}
	t.Reason = "CrashLoopBackOff"
	if last != nil {
		t.ExitCode, t.Message = last.ExitCode, last.Message
		if last.FinishedAt.Sub(last.StartedAt.Time) >= recent {
			crashes = 1
		}
		if last.Reason == "OOMKilled" || c.State.Terminated != nil && !stays && c.RestartCount == 0 && last.Reason != "" {
			t.Reason = last.Reason
		}
	}
	t.fatal = crashes > tolerance
	return t
}

// lastLine makes a termination message fit into a line; its end is what says why.
func lastLine(s string) string {
	const length = 300
	if len(s) > 8*length {
		s = s[len(s)-8*length:]
	}
	r := []rune(printable(s))
	if len(r) > length {
		return "…" + string(r[len(r)-length+1:])
	}
	return string(r)
}
