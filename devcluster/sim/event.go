package sim

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Event is something that a kubelet tells about a pod.
type Event struct {
	Type, Reason, Message string
}

// Events returns what is to be told about the change from one status to the next, and about what is lacking.
// Good news are left out: nothing waits for them.
func Events(pod *corev1.Pod, from, to *corev1.PodStatus, lacks []Lack) []Event {
	var all []Event
	if to.Phase == corev1.PodPending {
		for _, l := range lacks {
			if l.Volume != "" {
				all = append(all, Event{corev1.EventTypeWarning, "FailedMount", l.Message})
			}
		}
	}
	before := map[string]corev1.ContainerState{}
	for _, c := range append(append([]corev1.ContainerStatus(nil), from.InitContainerStatuses...), from.ContainerStatuses...) {
		before[c.Name] = c.State
	}
	for _, c := range append(append([]corev1.ContainerStatus(nil), to.InitContainerStatuses...), to.ContainerStatuses...) {
		w := c.State.Waiting
		if w == nil {
			continue
		}
		if old := before[c.Name].Waiting; old != nil && old.Reason == w.Reason {
			continue
		}
		switch w.Reason {
		case "ErrImagePull":
			all = append(all, Event{corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", c.Image, w.Message)})
		case "ImagePullBackOff":
			all = append(all, Event{corev1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", c.Image)})
		case "CreateContainerConfigError", "CreateContainerError":
			all = append(all, Event{corev1.EventTypeWarning, "Failed", "Error: " + w.Message})
		case "CrashLoopBackOff":
			all = append(all, Event{corev1.EventTypeWarning, "BackOff",
				fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", c.Name, pod.Name, pod.Namespace, pod.UID)})
		}
	}
	return all
}
