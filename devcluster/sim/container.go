package sim

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pullRetry is how long a failed pull shows as such before the kubelet backs off.
const pullRetry = 500 * time.Millisecond

// shot is one container at one moment.
type shot struct {
	corev1.ContainerStatus
	again  time.Duration // until it looks different by itself; 0: never
	doomed bool          // the pod fails with it, whatever its restart policy
}

// role is one container on its stage: what it does, and since when it could.
type role struct {
	script
	act
	spec  *corev1.Container
	pod   string // name_namespace(uid), as the kubelet's messages say it
	began time.Time
}

func waiting(reason, message string) shot {
	var s shot
	s.State.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
	return s
}

func (s shot) in(d time.Duration) shot {
	s.again = d
	return s
}

// stamp is a time as the API stores it: in whole seconds.
func stamp(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second)) }

func (r *role) running(from time.Duration, ready bool) shot {
	var s shot
	s.State.Running = &corev1.ContainerStateRunning{StartedAt: stamp(r.began.Add(from))}
	s.Ready = ready
	return s
}

func (r *role) terminated(code int32, from, to time.Duration) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: code, Reason: "Completed", StartedAt: stamp(r.began.Add(from)), FinishedAt: stamp(r.began.Add(to)),
	}
	if code != 0 {
		t.Reason, t.Message = "Error", r.message
	}
	return t
}

func (r *role) exited(code int32, from, to time.Duration) shot {
	var s shot
	s.State.Terminated = r.terminated(code, from, to)
	return s
}

// ends says whether the container is one that does its work and exits.
func (r *role) ends() bool { return r.policy != corev1.ContainerRestartPolicyAlways }

// at returns the container as it is at now.
func (r *role) at(now time.Time) shot {
	age := now.Sub(r.began)
	switch {
	case r.behavior == pending:
		return waiting("ContainerCreating", "")
	case age < r.start:
		return waiting("ContainerCreating", "").in(r.start - age)
	case r.behavior == imagePull:
		return r.pull(age)
	case r.behavior == crashLoop:
		return r.crash(age, 2*r.crashEvery/5)
	case r.behavior == crashLoopAfter:
		return r.crash(age, r.ready-r.start+r.every)
	case r.behavior == fail && !r.ends():
		s := r.exited(1, r.start, r.start)
		s.doomed = true
		return s
	case r.behavior == neverReady:
		return r.running(r.start, false)
	case age < r.ready:
		return r.running(r.start, false).in(r.ready - age)
	case r.ends():
		return r.end(age)
	case r.behavior == flap:
		turn := age - r.ready
		return r.running(r.start, turn/r.every%2 == 0).in(r.every - turn%r.every)
	default:
		return r.running(r.start, true)
	}
}

// pull shows an image that cannot be pulled.
func (r *role) pull(age time.Duration) shot {
	cause := fmt.Sprintf("failed to pull and unpack image %q: not found (simulated)", r.spec.Image)
	if left := r.start + pullRetry - age; left > 0 {
		return waiting("ErrImagePull", cause).in(left)
	}
	return waiting("ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %s", r.spec.Image, cause))
}

// end shows a container that runs for a while and exits.
func (r *role) end(age time.Duration) shot {
	end := r.ready + r.runFor
	switch {
	case age < end:
		return r.running(r.start, true).in(end - age)
	case r.behavior == fail:
		s := r.exited(1, r.start, end)
		s.doomed = true
		return s
	default:
		return r.exited(0, r.start, end)
	}
}

// crash shows a container whose first run lasts for first and ends in a crash. From there it turns in a circle of
// crashEvery: a fifth terminated, two fifths backing off, two fifths running. A real kubelet backs off for 10s, 20s,
// 40s and so on; that would only make tests slow.
func (r *role) crash(age, first time.Duration) shot {
	into := age - r.start - first // since the first crash
	if into < 0 {
		ready := r.behavior == crashLoopAfter && age >= r.ready
		left := -into
		if r.behavior == crashLoopAfter && !ready {
			left = r.ready - age
		}
		return r.running(r.start, ready).in(left)
	}
	if r.policy == corev1.ContainerRestartPolicyNever {
		return r.exited(1, r.start, r.start+first)
	}
	turn, off := into/r.crashEvery, into%r.crashEvery
	last, back := r.crashEvery/5, 3*r.crashEvery/5
	// The nth run, counted from 0, as it ended.
	run := func(n time.Duration) *corev1.ContainerStateTerminated {
		to := r.start + first + n*r.crashEvery
		from := r.start
		if n > 0 {
			from = to - r.crashEvery + back
		}
		return r.terminated(1, from, to)
	}
	var s shot
	switch {
	case off < last:
		s.State.Terminated = run(turn)
		if turn > 0 {
			s.LastTerminationState.Terminated = run(turn - 1)
		}
		s.again, s.RestartCount = last-off, int32(turn)
	case off < back:
		s = waiting("CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", back-last, r.spec.Name, r.pod))
		s.LastTerminationState.Terminated = run(turn)
		s.again, s.RestartCount = back-off, int32(turn)
	default:
		s = r.running(r.start+first+turn*r.crashEvery+back, false)
		s.LastTerminationState.Terminated = run(turn)
		s.again, s.RestartCount = r.crashEvery-off, int32(turn)+1
	}
	return s
}
