package sim

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// World is what all pods have in common.
type World struct {
	ReadyAfter time.Duration // from bound to ready, for pods that do not say
}

// Life remembers when each container of a pod could start, to the nanosecond, which the API does not store.
type Life map[string]time.Time

// Recall rebuilds from a pod's status what was known of its life before the simulator was restarted.
func (w World) Recall(pod *corev1.Pod) Life {
	life := Life{}
	s, err := read(pod, w.ReadyAfter)
	if err != nil {
		return life
	}
	var began time.Time
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReadyToStartContainers && c.Status == corev1.ConditionTrue {
			began = c.LastTransitionTime.Time
		}
	}
	for _, c := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		switch {
		case c.State.Running != nil && c.RestartCount == 0:
			life[c.Name] = c.State.Running.StartedAt.Add(-s.start)
		case !began.IsZero() && (c.State.Terminated != nil || c.RestartCount > 0):
			life[c.Name] = began.Add(-s.start)
		}
	}
	return life
}

// Status returns the pod's status at now, and after how long it will be another by itself (0: never).
// life is added to. StartTime and addresses are the caller's and stay as they are.
func (w World) Status(pod *corev1.Pod, life Life, lacks []Lack, now time.Time) (corev1.PodStatus, time.Duration) {
	p := &stage{pod: pod, life: life, now: now, lacks: lacks}
	p.script, p.wrong = read(pod, w.ReadyAfter)
	p.status = *pod.Status.DeepCopy()
	p.status.InitContainerStatuses, p.status.ContainerStatuses = nil, nil
	p.initialize()
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		s := waiting("PodInitializing", "")
		if !p.blocked {
			s = p.shoot(c, p.script.act(c), p.policy)
		}
		p.status.ContainerStatuses = append(p.status.ContainerStatuses, p.dress(c, s))
	}
	p.status.Phase = p.phase()
	p.status.ObservedGeneration = pod.Generation
	p.conditions()
	if p.status.Phase == corev1.PodSucceeded || p.status.Phase == corev1.PodFailed {
		return p.status, 0
	}
	return p.status, p.again
}

// stage is where one status is put together.
type stage struct {
	script
	wrong error // the annotations cannot be read
	pod   *corev1.Pod
	life  Life
	lacks []Lack
	now   time.Time

	status  corev1.PodStatus
	again   time.Duration
	blocked bool // an init container is not done
	started bool // containers may start: all volumes are there
	doomed  bool // the pod fails whatever its restart policy
}

// initialize shows the init containers, one after the other up to the first that is not done.
func (p *stage) initialize() {
	for i := range p.pod.Spec.InitContainers {
		c := &p.pod.Spec.InitContainers[i]
		s := waiting("PodInitializing", "")
		if !p.blocked {
			a, _ := tagged(c.Image)
			s = p.initShot(c, a)
		}
		p.status.InitContainerStatuses = append(p.status.InitContainerStatuses, p.dress(c, s))
	}
}

// sidecar says whether an init container is one that goes on beside the others.
func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func (p *stage) initShot(c *corev1.Container, a act) shot {
	if sidecar(c) {
		s := p.shoot(c, a, corev1.ContainerRestartPolicyAlways)
		p.blocked = s.State.Running == nil && s.LastTerminationState.Terminated == nil
		return s
	}
	policy := p.policy
	if policy == corev1.ContainerRestartPolicyAlways {
		policy = corev1.ContainerRestartPolicyOnFailure // what is to end is not started again after success
	}
	own := p.script
	p.ready, p.runFor = p.start, 0
	s := p.shoot(c, a, policy)
	p.script = own
	p.blocked = s.State.Terminated == nil || s.State.Terminated.ExitCode != 0
	s.Ready = !p.blocked
	if p.blocked && policy == corev1.ContainerRestartPolicyNever && s.State.Terminated != nil {
		p.doomed = true
	}
	return s
}

// shoot shows a container that is allowed to start, or why it cannot.
func (p *stage) shoot(c *corev1.Container, a act, policy corev1.ContainerRestartPolicy) shot {
	if p.wrong != nil {
		return waiting("CreateContainerError", p.wrong.Error())
	}
	_, begun := p.life[c.Name]
	for _, l := range p.lacks {
		switch {
		case begun: // what is taken away later does not stop a container
		case l.Volume != "":
			return waiting("ContainerCreating", "")
		case l.Container == c.Name:
			p.started = true
			return waiting("CreateContainerConfigError", l.Message)
		}
	}
	if !begun {
		p.life[c.Name] = p.now
	}
	r := role{script: p.script, act: a, spec: c, began: p.life[c.Name],
		pod: fmt.Sprintf("%s_%s(%s)", p.pod.Name, p.pod.Namespace, p.pod.UID)}
	r.policy = policy
	s := r.at(p.now)
	p.started = p.started || p.now.Sub(r.began) >= r.start
	p.doomed = p.doomed || s.doomed
	if s.again > 0 && (p.again == 0 || s.again < p.again) {
		p.again = s.again
	}
	return s
}

// dress completes a container's status with what does not depend on the moment.
func (p *stage) dress(c *corev1.Container, s shot) corev1.ContainerStatus {
	st := s.ContainerStatus
	started := st.State.Running != nil
	st.Name, st.Image, st.Started = c.Name, c.Image, &started
	id := func(n int32) string { return fmt.Sprintf("sim://%s/%s/%d", p.pod.UID, c.Name, n) }
	if st.State.Waiting == nil || st.LastTerminationState.Terminated != nil {
		st.ImageID, st.ContainerID = "sim://"+c.Image, id(st.RestartCount)
	}
	if t := st.State.Terminated; t != nil {
		t.ContainerID = id(st.RestartCount)
	}
	if t := st.LastTerminationState.Terminated; t != nil {
		last := st.RestartCount - 1
		if st.State.Waiting != nil {
			last = st.RestartCount
		}
		t.ContainerID = id(last)
	}
	return st
}

// phase derives the pod's phase as the kubelet does.
func (p *stage) phase() corev1.PodPhase {
	if p.doomed {
		return corev1.PodFailed
	}
	if p.blocked {
		return corev1.PodPending
	}
	var running, stopped, succeeded int
	for i := range p.status.ContainerStatuses {
		switch c := &p.status.ContainerStatuses[i]; {
		case c.State.Running != nil:
			running++
		case c.State.Terminated != nil:
			stopped++
			if c.State.Terminated.ExitCode == 0 {
				succeeded++
			}
		case c.LastTerminationState.Terminated != nil:
			stopped++
		default:
			return corev1.PodPending
		}
	}
	switch {
	case running > 0 || p.policy == corev1.ContainerRestartPolicyAlways:
		return corev1.PodRunning
	case stopped == succeeded:
		return corev1.PodSucceeded
	case p.policy == corev1.ContainerRestartPolicyNever:
		return corev1.PodFailed
	default:
		return corev1.PodRunning
	}
}

// conditions sets the pod's conditions.
func (p *stage) conditions() {
	unready := func(all []corev1.ContainerStatus, counts func(i int) bool) (names []string) {
		for i, c := range all {
			if counts(i) && !c.Ready {
				names = append(names, c.Name)
			}
		}
		return names
	}
	waitingFor := unready(p.status.InitContainerStatuses, func(i int) bool { return sidecar(&p.pod.Spec.InitContainers[i]) })
	waitingFor = append(waitingFor, unready(p.status.ContainerStatuses, func(int) bool { return true })...)
	reason, message := "ContainersNotReady", "containers with unready status: ["+strings.Join(waitingFor, " ")+"]"
	switch p.status.Phase {
	case corev1.PodSucceeded:
		reason, message = "PodCompleted", ""
	case corev1.PodFailed:
		reason, message = "PodFailed", ""
	}
	uninitialized := unready(p.status.InitContainerStatuses, func(int) bool { return p.blocked })
	p.set(corev1.PodScheduled, true, "", "")
	p.set(corev1.PodReadyToStartContainers, p.started, "", "")
	p.set(corev1.PodInitialized, !p.blocked, "ContainersNotInitialized",
		"containers with incomplete status: ["+strings.Join(uninitialized, " ")+"]")
	ready := len(waitingFor) == 0 && p.status.Phase == corev1.PodRunning
	p.set(corev1.ContainersReady, ready, reason, message)
	for _, g := range p.pod.Spec.ReadinessGates {
		if ready && !p.holds(g.ConditionType) {
			ready, reason = false, "ReadinessGatesNotReady"
			message = fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist or is not True.", g.ConditionType)
		}
	}
	p.set(corev1.PodReady, ready, reason, message)
}

func (p *stage) holds(t corev1.PodConditionType) bool {
	for _, c := range p.status.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// set writes a condition and keeps the time of its last change.
func (p *stage) set(t corev1.PodConditionType, ok bool, reason, message string) {
	want := corev1.PodCondition{
		Type: t, Status: corev1.ConditionTrue, ObservedGeneration: p.pod.Generation, LastTransitionTime: stamp(p.now),
	}
	if !ok {
		want.Status, want.Reason, want.Message = corev1.ConditionFalse, reason, message
	}
	for i := range p.status.Conditions {
		if have := &p.status.Conditions[i]; have.Type == t {
			if have.Status == want.Status {
				want.LastTransitionTime = have.LastTransitionTime
			}
			*have = want
			return
		}
	}
	p.status.Conditions = append(p.status.Conditions, want)
}
