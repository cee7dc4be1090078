package kubelet

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nexus-platform/reconciler/devcluster/sim"
)

// life is the life of the pod that now has a name.
type life struct {
	uid types.UID
	sim sim.Life
}

// pod takes a pod one step further.
func (r *runner) pod(ctx context.Context, k key) (time.Duration, error) {
	cached, err := r.pods.Pods(k.namespace).Get(k.name)
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.lives, k)
		return 0, err
	}
	host, ours := r.nodes[cached.Spec.NodeName]
	if !ours {
		return 0, nil
	}
	now := time.Now()
	if cached.DeletionTimestamp != nil {
		return r.terminate(ctx, cached, now)
	}
	if cached.Status.Phase == corev1.PodSucceeded || cached.Status.Phase == corev1.PodFailed {
		return 0, nil
	}
	pod := cached.DeepCopy()
	if pod.Status.StartTime == nil {
		r.admit(pod, host, now)
	}
	var lacks []sim.Lack
	if pod.Status.Phase == corev1.PodPending {
		if lacks, err = r.lacks(ctx, pod); err != nil {
			return 0, err
		}
	}
	status, again := r.World.Status(pod, r.life(k, cached), lacks, now)
	for _, e := range sim.Events(pod, &cached.Status, &status, lacks) {
		r.events.Event(pod, e.Type, e.Reason, e.Message)
	}
	if equality.Semantic.DeepEqual(&cached.Status, &status) {
		return again, nil
	}
	pod.Status = status
	_, err = r.Client.CoreV1().Pods(k.namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return again, err
}

// admit takes a pod that was bound to one of our nodes.
func (r *runner) admit(pod *corev1.Pod, host string, now time.Time) {
	start := metav1.NewTime(now.Truncate(time.Second))
	st := &pod.Status
	st.StartTime, st.HostIP, st.HostIPs, st.PodIP = &start, host, []corev1.HostIP{{IP: host}}, host
	if !pod.Spec.HostNetwork {
		r.mu.Lock()
		st.PodIP = r.ips.next()
		r.mu.Unlock()
	}
	st.PodIPs = []corev1.PodIP{{IP: st.PodIP}}
}

// terminate ends a deleted pod when its time has come: only a kubelet's delete without grace frees the name.
func (r *runner) terminate(ctx context.Context, pod *corev1.Pod, now time.Time) (time.Duration, error) {
	if left := sim.TerminateIn(pod, now); left > 0 {
		return left, nil
	}
	zero := int64(0)
	return 0, r.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero, Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
}

// life returns what is remembered of a pod.
func (r *runner) life(k key, pod *corev1.Pod) sim.Life {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lives[k]
	if l == nil || l.uid != pod.UID {
		l = &life{pod.UID, r.World.Recall(pod)}
		r.lives[k] = l
	}
	return l.sim
}

// lacks returns what keeps a pod from starting. What the cache lacks is looked for in the API server: a Secret made just
// before its pod may reach the cache after it, and must not show as missing.
func (r *runner) lacks(ctx context.Context, pod *corev1.Pod) ([]sim.Lack, error) {
	lacks, err := sim.Lacks(pod, func(kind, name string) (map[string]bool, error) {
		if kind == "Secret" {
			return secretKeys(r.secrets.Secrets(pod.Namespace).Get(name))
		}
		return configMapKeys(r.configMaps.ConfigMaps(pod.Namespace).Get(name))
	})
	if err != nil || len(lacks) == 0 {
		return nil, err
	}
	return sim.Lacks(pod, func(kind, name string) (map[string]bool, error) {
		if kind == "Secret" {
			return secretKeys(r.Client.CoreV1().Secrets(pod.Namespace).Get(ctx, name, metav1.GetOptions{}))
		}
		return configMapKeys(r.Client.CoreV1().ConfigMaps(pod.Namespace).Get(ctx, name, metav1.GetOptions{}))
	})
}

func secretKeys(s *corev1.Secret, err error) (map[string]bool, error) {
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	keys := map[string]bool{}
	for k := range s.Data {
		keys[k] = true
	}
	return keys, nil
}

func configMapKeys(m *corev1.ConfigMap, err error) (map[string]bool, error) {
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	keys := map[string]bool{}
	for k := range m.Data {
		keys[k] = true
	}
	for k := range m.BinaryData {
		keys[k] = true
	}
	return keys, nil
}

// addresses gives pods their IPs, out of 10.244.0.0/16, one after the other.
type addresses struct{ last uint32 }

// used keeps an address from before a restart from being given out again.
func (a *addresses) used(ip string) {
	var hi, lo uint32
	if n, _ := fmt.Sscanf(ip, "10.244.%d.%d", &hi, &lo); n == 2 {
		a.last = max(a.last, hi<<8|lo)
	}
}

func (a *addresses) next() string {
	a.last++
	if low := a.last & 0xff; low == 0 || low == 0xff { // network and broadcast
		a.last = (a.last | 0xff) + 2
	}
	return fmt.Sprintf("10.244.%d.%d", a.last>>8&0xff, a.last&0xff)
}
