// Package sim says what a simulated pod looks like at a moment. It is made of pure functions of the pod, the clock and
// what the pod lacks; package kubelet carries their results to the API server.
package sim

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Annotations on a pod (in a workload: on its pod template) that decide how it behaves. Durations are Go's: 1s, 200ms.
const (
	BehaviorAnnotation           = "devcluster/behavior"            // of all containers; see behavior below
	ReadyAfterAnnotation         = "devcluster/ready-after"         // from start to ready
	RunForAnnotation             = "devcluster/run-for"             // restart policy Never or OnFailure: from ready to exit code 0; 1s
	CrashEveryAnnotation         = "devcluster/crash-every"         // one turn of a crash loop; 1s
	TerminationMessageAnnotation = "devcluster/termination-message" // of containers that exit with code 1
	TerminateAfterAnnotation     = "devcluster/terminate-after"     // from deletion to end, at most the grace period; 0
)

// behavior is what a container does. It stands in the annotation for all containers of a pod but the init containers,
// or in the image's tag for that container alone.
type behavior string

const (
	healthy        behavior = ""
	neverReady     behavior = "never-ready"     // runs and is never ready; never ends, if it should
	crashLoop      behavior = "crashloop"       // crashes before it is ready, again and again
	crashLoopAfter behavior = "crashloop-after" // the same after having been ready for a while: crashloop-after=5s, as a tag crashloop-after-5s
	imagePull      behavior = "image-pull"      // the image cannot be pulled
	pending        behavior = "pending"         // is being created for ever
	fail           behavior = "fail"            // exits with code 1 and takes the pod to phase Failed
	flap           behavior = "flap"            // ready and not ready in turn: flap=10s, as a tag flap-10s
)

var known = []behavior{neverReady, crashLoop, crashLoopAfter, imagePull, pending, fail, flap}

// timed says whether b wants a duration.
func (b behavior) timed() bool { return b == crashLoopAfter || b == flap }

// act is what one container does.
type act struct {
	behavior behavior
	every    time.Duration // of the timed ones
}

// script is what a pod has been told to do, annotations read.
type script struct {
	all        act                           // from the annotation
	start      time.Duration                 // from the moment that a container may start to Running
	ready      time.Duration                 // from the same moment to ready
	runFor     time.Duration                 // from ready to the end of what ends
	crashEvery time.Duration                 // from crash to crash
	message    string                        // left behind by exit code 1
	policy     corev1.ContainerRestartPolicy // of the pod
}

// read reads the pod's annotations. readyAfter is how long a container takes that says nothing about it.
func read(pod *corev1.Pod, readyAfter time.Duration) (script, error) {
	s := script{
		start: readyAfter, ready: readyAfter, runFor: time.Second, crashEvery: time.Second,
		message: pod.Annotations[TerminationMessageAnnotation],
		policy:  corev1.ContainerRestartPolicy(pod.Spec.RestartPolicy),
	}
	if s.message == "" {
		s.message = "simulated: exit status 1"
	}
	for annotation, d := range map[string]*time.Duration{
		ReadyAfterAnnotation: &s.ready, RunForAnnotation: &s.runFor, CrashEveryAnnotation: &s.crashEvery,
	} {
		if err := duration(pod, annotation, d); err != nil {
			return s, err
		}
	}
	s.start = min(s.start, s.ready)
	// Below this the status writes of one pod alone would keep the API server busy.
	s.crashEvery = max(s.crashEvery, 50*time.Millisecond)
	var err error
	if text := pod.Annotations[BehaviorAnnotation]; text != "" {
		s.all, err = parse(text)
	}
	return s, err
}

func duration(pod *corev1.Pod, annotation string, d *time.Duration) error {
	text := pod.Annotations[annotation]
	if text == "" {
		return nil
	}
	got, err := time.ParseDuration(text)
	if err != nil || got < 0 {
		return fmt.Errorf("annotation %s: %q is no duration: write for instance 5s", annotation, text)
	}
	*d = got
	return nil
}

// parse reads the annotation's value.
func parse(text string) (act, error) {
	name, arg, hasArg := strings.Cut(text, "=")
	for _, b := range known {
		if string(b) != name || hasArg != b.timed() {
			continue
		}
		if !hasArg {
			return act{behavior: b}, nil
		}
		every, err := time.ParseDuration(arg)
		if err != nil || every <= 0 {
			return act{}, fmt.Errorf("annotation %s: %q is no duration above zero: write for instance %s=5s", BehaviorAnnotation, arg, b)
		}
		return act{b, every}, nil
	}
	var names []string
	for _, b := range known {
		if b.timed() {
			b += "=5s"
		}
		names = append(names, string(b))
	}
	return act{}, fmt.Errorf("annotation %s: unknown behavior %q: write one of %s", BehaviorAnnotation, text, strings.Join(names, ", "))
}

// tagged reads an image's tag. A tag that names no behavior is a tag like any other.
func tagged(image string) (act, bool) {
	image, _, _ = strings.Cut(image, "@")
	tag := image[strings.LastIndexByte(image, ':')+1:]
	for _, b := range known {
		if b.timed() {
			arg, ok := strings.CutPrefix(tag, string(b)+"-")
			if every, err := time.ParseDuration(arg); ok && err == nil && every > 0 {
				return act{b, every}, true
			}
		} else if string(b) == tag {
			return act{behavior: b}, true
		}
	}
	return act{}, false
}

// act returns what a container does: what its image says, else what the pod says.
func (s script) act(c *corev1.Container) act {
	if a, ok := tagged(c.Image); ok {
		return a
	}
	return s.all
}

// TerminateIn returns how long a pod that is being deleted still has at now.
func TerminateIn(pod *corev1.Pod, now time.Time) time.Duration {
	var grace, takes time.Duration
	if pod.DeletionGracePeriodSeconds != nil {
		grace = time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	}
	// A wrong annotation has shown in the pod's status while it lived.
	_ = duration(pod, TerminateAfterAnnotation, &takes)
	asked := pod.DeletionTimestamp.Add(-grace)
	return max(0, asked.Add(min(takes, grace)).Sub(now))
}
