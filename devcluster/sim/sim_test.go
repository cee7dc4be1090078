package sim

import (
	gocmp "cmp"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	noon  = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	world = World{ReadyAfter: 200 * time.Millisecond}
)

// pod makes a pod from words: name=value annotations (short names), container images, and
// init:IMAGE, sidecar:IMAGE, policy:Never.
func pod(words ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop", UID: "u", Generation: 1, Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways},
		Status:     corev1.PodStatus{Phase: corev1.PodPending},
	}
	for _, w := range words {
		kind, image, _ := strings.Cut(w, " ")
		key, value, annotation := strings.Cut(w, "=")
		switch {
		case kind == "policy":
			p.Spec.RestartPolicy = corev1.RestartPolicy(image)
		case kind == "init", kind == "sidecar":
			c := corev1.Container{Name: fmt.Sprintf("i%d", len(p.Spec.InitContainers)), Image: image}
			if kind == "sidecar" {
				always := corev1.ContainerRestartPolicyAlways
				c.RestartPolicy = &always
			}
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		case annotation:
			p.Annotations["devcluster/"+key] = value
		default:
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprintf("c%d", len(p.Spec.Containers)), Image: w})
		}
	}
	if len(p.Spec.Containers) == 0 {
		p.Spec.Containers = []corev1.Container{{Name: "c0", Image: "web:1"}}
	}
	return p
}

// tell puts a status into words.
func tell(st *corev1.PodStatus) string {
	var words []string
	for _, c := range append(append([]corev1.ContainerStatus(nil), st.InitContainerStatuses...), st.ContainerStatuses...) {
		word := c.Name + " "
		switch {
		case c.State.Waiting != nil:
			word += c.State.Waiting.Reason
		case c.State.Running != nil && c.Ready:
			word += "ready"
		case c.State.Running != nil:
			word += "running"
		case c.State.Terminated != nil:
			word += fmt.Sprintf("exit %d", c.State.Terminated.ExitCode)
		}
		if c.RestartCount > 0 {
			word += fmt.Sprintf(" restarts %d", c.RestartCount)
		}
		if t := c.LastTerminationState.Terminated; t != nil {
			word += fmt.Sprintf(" last %d", t.ExitCode)
		}
		words = append(words, word)
	}
	return string(st.Phase) + ": " + strings.Join(words, ", ")
}

// play follows a pod by the looks that Status asks for and returns every change, with its time, until end or rest.
func play(t *testing.T, p *corev1.Pod, end time.Duration) []string {
	t.Helper()
	life, now := Life{}, noon
	var story []string
	last := ""
	for range 1000 {
		st, again := world.Status(p, life, nil, now)
		if told := tell(&st); told != last {
			last = told
			story = append(story, fmt.Sprintf("%v %s", now.Sub(noon), told))
		}
		p.Status = st
		if again < 0 {
			t.Fatalf("look again in %s", again)
		}
		if again == 0 || now.Add(again).Sub(noon) > end {
			return story
		}
		now = now.Add(again)
	}
	t.Fatalf("never rests: %q", story)
	return nil
}

func TestPodsBehaveAsTold(t *testing.T) {
	const creating = "0s Pending: c0 ContainerCreating"
	for name, tt := range map[string]struct {
		pod   *corev1.Pod
		until time.Duration
		want  []string
	}{
		"a pod that says nothing is soon ready":            {pod(), 0, []string{creating, "200ms Running: c0 ready"}},
		"a registry's port is no tag":                      {pod("host:5000/crashloop"), 0, []string{creating, "200ms Running: c0 ready"}},
		"a slow pod runs before it is ready":               {pod("ready-after=5s"), 0, []string{creating, "200ms Running: c0 running", "5s Running: c0 ready"}},
		"a fast pod is ready at once":                      {pod("ready-after=0s"), 0, []string{"0s Running: c0 ready"}},
		"a pod is never ready by annotation":               {pod("behavior=never-ready"), 0, []string{creating, "200ms Running: c0 running"}},
		"a pod is never ready by its image's tag":          {pod("web:never-ready"), 0, []string{creating, "200ms Running: c0 running"}},
		"a digest after the tag does not hide it":          {pod("web:never-ready@sha256:00"), 0, []string{creating, "200ms Running: c0 running"}},
		"a tag speaks for its container alone":             {pod("web:1", "web:never-ready"), 0, []string{"0s Pending: c0 ContainerCreating, c1 ContainerCreating", "200ms Running: c0 ready, c1 running"}},
		"a tag overrules the annotation":                   {pod("web:never-ready", "behavior=pending"), 0, []string{creating, "200ms Running: c0 running"}},
		"a pending pod stays so":                           {pod("behavior=pending"), 0, []string{creating}},
		"a pull fails first and is then backed off from":   {pod("web:image-pull"), 0, []string{creating, "200ms Pending: c0 ErrImagePull", "700ms Pending: c0 ImagePullBackOff"}},
		"one image that cannot be pulled holds the pod":    {pod("web:1", "web:image-pull"), 0, []string{"0s Pending: c0 ContainerCreating, c1 ContainerCreating", "200ms Pending: c0 ready, c1 ErrImagePull", "700ms Pending: c0 ready, c1 ImagePullBackOff"}},
		"a failing pod fails though it would be restarted": {pod("web:fail"), 0, []string{creating, "200ms Failed: c0 exit 1"}},
		"an unknown behavior is told":                      {pod("behavior=crashlop"), 0, []string{"0s Pending: c0 CreateContainerError"}},
		"a wrong duration is told":                         {pod("ready-after=5"), 0, []string{"0s Pending: c0 CreateContainerError"}},
		"a flapping pod is ready in turn": {pod("behavior=flap=10s"), 25 * time.Second, []string{creating,
			"200ms Running: c0 ready", "10.2s Running: c0 running", "20.2s Running: c0 ready"}},
		"a flapping image is ready in turn": {pod("web:flap-10s"), 15 * time.Second, []string{creating,
			"200ms Running: c0 ready", "10.2s Running: c0 running"}},
		"a crash loop restarts three times in about three seconds": {pod("web:crashloop"), 3300 * time.Millisecond, []string{creating,
			"200ms Running: c0 running", "600ms Running: c0 exit 1", "800ms Running: c0 CrashLoopBackOff last 1",
			"1.2s Running: c0 running restarts 1 last 1", "1.6s Running: c0 exit 1 restarts 1 last 1",
			"1.8s Running: c0 CrashLoopBackOff restarts 1 last 1",
			"2.2s Running: c0 running restarts 2 last 1", "2.6s Running: c0 exit 1 restarts 2 last 1",
			"2.8s Running: c0 CrashLoopBackOff restarts 2 last 1", "3.2s Running: c0 running restarts 3 last 1"}},
		"crash-every makes the loop slower": {pod("behavior=crashloop", "crash-every=10s"), 11 * time.Second, []string{creating,
			"200ms Running: c0 running", "4.2s Running: c0 exit 1", "6.2s Running: c0 CrashLoopBackOff last 1",
			"10.2s Running: c0 running restarts 1 last 1"}},
		"a pod is ready before it crash-loops": {pod("behavior=crashloop-after=5s"), 6200 * time.Millisecond, []string{creating,
			"200ms Running: c0 ready", "5.2s Running: c0 exit 1", "5.4s Running: c0 CrashLoopBackOff last 1",
			"5.8s Running: c0 running restarts 1 last 1", "6.2s Running: c0 exit 1 restarts 1 last 1"}},
		"an image is ready before it crash-loops": {pod("web:crashloop-after-5s", "ready-after=1s"), 6 * time.Second, []string{creating,
			"200ms Running: c0 running", "1s Running: c0 ready", "6s Running: c0 exit 1"}},
		"a pod that is not restarted fails with its first crash": {pod("web:crashloop", "policy Never"), time.Hour, []string{creating,
			"200ms Running: c0 running", "600ms Failed: c0 exit 1"}},
		"a Job's pod ends well":           {pod("policy Never", "run-for=3s"), 0, []string{creating, "200ms Running: c0 ready", "3.2s Succeeded: c0 exit 0"}},
		"a Job's pod fails":               {pod("policy OnFailure", "web:fail"), 0, []string{creating, "200ms Running: c0 ready", "1.2s Failed: c0 exit 1"}},
		"a Job's pod that is never ready": {pod("policy Never", "web:never-ready"), 0, []string{creating, "200ms Running: c0 running"}},
		"a Job's pod crash-loops on failure": {pod("policy OnFailure", "web:crashloop"), 1300 * time.Millisecond, []string{creating,
			"200ms Running: c0 running", "600ms Running: c0 exit 1", "800ms Running: c0 CrashLoopBackOff last 1", "1.2s Running: c0 running restarts 1 last 1"}},
		"init containers run one after the other": {pod("init a:1", "init b:1"), 0, []string{
			"0s Pending: i0 ContainerCreating, i1 PodInitializing, c0 PodInitializing",
			"200ms Pending: i0 exit 0, i1 ContainerCreating, c0 PodInitializing",
			"400ms Pending: i0 exit 0, i1 exit 0, c0 ContainerCreating",
			"600ms Running: i0 exit 0, i1 exit 0, c0 ready"}},
		"an init container that crash-loops holds the pod": {pod("init a:crashloop"), time.Second, []string{
			"0s Pending: i0 ContainerCreating, c0 PodInitializing", "200ms Pending: i0 running, c0 PodInitializing",
			"600ms Pending: i0 exit 1, c0 PodInitializing", "800ms Pending: i0 CrashLoopBackOff last 1, c0 PodInitializing"}},
		"an init container that fails takes a Job's pod with it": {pod("init a:crashloop", "policy Never"), time.Minute, []string{
			"0s Pending: i0 ContainerCreating, c0 PodInitializing", "200ms Pending: i0 running, c0 PodInitializing",
			"600ms Failed: i0 exit 1, c0 PodInitializing"}},
		"a sidecar goes on beside the others": {pod("sidecar a:1"), 0, []string{
			"0s Pending: i0 ContainerCreating, c0 PodInitializing", "200ms Pending: i0 ready, c0 ContainerCreating",
			"400ms Running: i0 ready, c0 ready"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, play(t, tt.pod, gocmp.Or(tt.until, time.Minute))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// conditions puts the conditions that are not true into words.
func conditions(st *corev1.PodStatus) map[corev1.PodConditionType]string {
	got := map[corev1.PodConditionType]string{}
	for _, c := range st.Conditions {
		got[c.Type] = string(c.Status)
		if c.Reason != "" {
			got[c.Type] += " " + c.Reason
		}
		if c.Message != "" {
			got[c.Type] += ": " + c.Message
		}
	}
	return got
}

func TestConditionsSayWhatIsMissing(t *testing.T) {
	gated := pod()
	gated.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/in-rotation"}}
	for name, tt := range map[string]struct {
		pod  *corev1.Pod
		want map[corev1.PodConditionType]string
	}{
		"a ready pod has them all": {pod(), map[corev1.PodConditionType]string{
			"PodScheduled": "True", "PodReadyToStartContainers": "True", "Initialized": "True", "ContainersReady": "True", "Ready": "True"}},
		"an unready container is named": {pod("web:never-ready", "web:1"), map[corev1.PodConditionType]string{
			"PodScheduled": "True", "PodReadyToStartContainers": "True", "Initialized": "True",
			"ContainersReady": "False ContainersNotReady: containers with unready status: [c0]",
			"Ready":           "False ContainersNotReady: containers with unready status: [c0]"}},
		"an unfinished init container is named": {pod("init a:never-ready"), map[corev1.PodConditionType]string{
			"PodScheduled": "True", "PodReadyToStartContainers": "True",
			"Initialized":     "False ContainersNotInitialized: containers with incomplete status: [i0]",
			"ContainersReady": "False ContainersNotReady: containers with unready status: [c0]",
			"Ready":           "False ContainersNotReady: containers with unready status: [c0]"}},
		"an open readiness gate is named": {gated, map[corev1.PodConditionType]string{
			"PodScheduled": "True", "PodReadyToStartContainers": "True", "Initialized": "True", "ContainersReady": "True",
			"Ready": `False ReadinessGatesNotReady: corresponding condition of pod readiness gate "example.com/in-rotation" does not exist or is not True.`}},
		"a completed pod is not ready": {pod("policy Never"), map[corev1.PodConditionType]string{
			"PodScheduled": "True", "PodReadyToStartContainers": "True", "Initialized": "True",
			"ContainersReady": "False PodCompleted", "Ready": "False PodCompleted"}},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, tt.pod, time.Minute)
			if diff := cmp.Diff(tt.want, conditions(&tt.pod.Status)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestTheLastTerminationTellsWhatHappened(t *testing.T) {
	p := pod("web:crashloop", "termination-message=cannot reach the database", "crash-every=10s")
	play(t, p, 11*time.Second) // to the second run
	second := noon.Add(4 * time.Second)
	want := &corev1.ContainerStateTerminated{
		ExitCode: 1, Reason: "Error", Message: "cannot reach the database",
		StartedAt: metav1.NewTime(noon), FinishedAt: metav1.NewTime(second), ContainerID: "sim://u/c0/0",
	}
	if diff := cmp.Diff(want, p.Status.ContainerStatuses[0].LastTerminationState.Terminated); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestALookAtAStoredStatusChangesNothing(t *testing.T) {
	for _, p := range []*corev1.Pod{pod(), pod("web:crashloop"), pod("init a:1"), pod("policy Never")} {
		life := Life{}
		for _, at := range []time.Duration{0, 250 * time.Millisecond, 900 * time.Millisecond, 1700 * time.Millisecond} {
			p.Status, _ = world.Status(p, life, nil, noon.Add(at))
			again, _ := world.Status(p, life, nil, noon.Add(at+time.Millisecond))
			if diff := cmp.Diff(p.Status, again); diff != "" {
				t.Errorf("%s at %s: a second look differs:\n%s", p.Spec.Containers[0].Image, at, diff)
			}
		}
	}
}

func TestALifeIsRecalledFromTheStatus(t *testing.T) {
	for name, p := range map[string]*corev1.Pod{
		"a ready pod stays ready":            pod(),
		"a crash loop goes on counting":      pod("web:crashloop"),
		"an init container is not run again": pod("init a:1"),
	} {
		t.Run(name, func(t *testing.T) {
			life := Life{}
			for at := time.Duration(0); at < 20*time.Second; at += 100 * time.Millisecond {
				p.Status, _ = world.Status(p, life, nil, noon.Add(at))
			}
			before := p.Status.ContainerStatuses[0]
			after, _ := world.Status(p, world.Recall(p), nil, noon.Add(20*time.Second))
			if got := after.ContainerStatuses[0]; got.RestartCount < before.RestartCount || got.RestartCount > before.RestartCount+1 {
				t.Errorf("restarts: %d, were %d", got.RestartCount, before.RestartCount)
			}
			if after.Phase != corev1.PodRunning || before.Ready != after.ContainerStatuses[0].Ready && before.RestartCount == 0 {
				t.Errorf("%s, was ready %v", tell(&after), before.Ready)
			}
		})
	}
}

func TestADeletedPodTakesItsTimeWithinItsGrace(t *testing.T) {
	for name, tt := range map[string]struct {
		annotation string
		left       time.Duration
	}{
		"it ends at once if nothing is said": {"", 0},
		"it takes what it was told":          {"5s", 4 * time.Second},
		"it is killed after its grace":       {"5m", 29 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			p, grace := pod("terminate-after="+tt.annotation), int64(30)
			asked := metav1.NewTime(noon)
			deadline := metav1.NewTime(asked.Add(30 * time.Second))
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &deadline, &grace
			if got := TerminateIn(p, noon.Add(time.Second)); got != tt.left {
				t.Errorf("%s left, want %s", got, tt.left)
			}
		})
	}
}
