package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	corev1 "k8s.io/api/core/v1"

	"github.com/nexus-platform/reconciler/e2e/apicount"
	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/journal"
)

// meanwhile does what a mode says happens around a write.
func (l *lane) meanwhile(mode proxy.Mode, w proxy.Write) {
	ctx := context.Background() // it has to end whatever becomes of the test
	switch mode {
	case proxy.Away:
		l.proxy.Later(l.outage(), l.proxy.Vanish())
	case proxy.Hold, proxy.Lose:
		l.proxy.Later(l.outage(), l.proxy.HoldWatches(mode == proxy.Lose))
	case proxy.Stop:
		p := l.by(w)
		p.signal("STOP")
		l.proxy.Later(3*lease, func() { p.signal("CONT") })
	case proxy.Terminate:
		p := l.by(w)
		l.proxy.Later(0, func() {
			if took, err := p.stop(stopLimit); err != nil {
				l.violate("SIGTERM: %v (%s)", err, took)
			}
		})
	case proxy.Push:
		l.supersede(l.push("newer", l.next(false)), false)
	case proxy.Withdraw:
		l.supersede(l.push("withdrawn", l.base()), true)
	case proxy.Edit, proxy.Delete:
		l.disturb(ctx, mode, w.Request)
	case proxy.LoseHead:
		l.unwrite(l.kube.CoreV1().Secrets(l.system).Delete(ctx, "nexus-head-"+string(l.uid), metav1.DeleteOptions{}))
	case proxy.LoseNamespace:
		l.unwrite(l.kube.CoreV1().Namespaces().Delete(ctx, l.outside(), metav1.DeleteOptions{}))
	case proxy.LoseBundle:
		l.loseBundle(ctx, w.N)
	}
}

// loseBundle deletes a Secret of the journal: the new set, what is needed to undo it, what is still to be done, or what is owned,
// by a number. Where no release is open, one of those that there are. The sets of a lane are small: their chunks lie in the index.
func (l *lane) loseBundle(ctx context.Context, number int) {
	h, _ := l.proxy.Head()
	type bundle struct{ what, digest string }
	var all []bundle
	if h.Release != nil {
		all = append(all, bundle{"new set", h.Release.Set}, bundle{"plan", h.Release.Plan})
	}
	if h.Good != nil {
		all = append(all, bundle{"old set", h.Good.Set})
	}
	all = slices.DeleteFunc(append(all, bundle{"inventory", h.Inventory}), func(b bundle) bool { return b.digest == "" })
	if len(all) == 0 {
		l.unwrite(errNobodys)
		return
	}
	one := all[number%len(all)]
	l.lost = one.what
	l.unwrite(l.kube.CoreV1().Secrets(l.system).Delete(ctx, fmt.Sprintf("nexus-bundle-%s-%s", l.uid, one.digest[:32]), metav1.DeleteOptions{}))
}

// supersede notes that a newer commit arrived.
func (l *lane) supersede(commit string, withdrawn bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newer, l.withdrawn = commit, withdrawn
}

// superseding is the newer commit, if one arrived.
func (l *lane) superseding() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.newer
}

// stopLimit is how long a daemon may take to end when it is asked to.
const stopLimit = 5 * time.Second

// outage is how long nobody answers, or no watch tells anything.
func (l *lane) outage() time.Duration {
	if l.options.outage > 0 {
		return l.options.outage
	}
	return 4 * time.Second
}

// by is the daemon that a write came from.
func (l *lane) by(w proxy.Write) *process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.daemons[w.By]
}

// unwrite counts a fault that did not happen, because there was nothing to do it to. That a person could not do it is no fault of
// the daemon, but the run would prove nothing: it fails.
func (l *lane) unwrite(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	l.undone++
	l.mu.Unlock()
	if !errors.Is(err, errNobodys) && !apierrors.IsNotFound(err) {
		l.violate("the harness: %v", err)
	}
}

// fixtures are ConfigMaps that every set has, with another value in the new one than in the old: the small sets have the first alone.
var fixtures = []string{"settings", "dashboard", "route"}

// healings is how often one of them may be disturbed in a lane: a daemon that healed an object three times within an hour pauses.
const healings = 2

// fixture is the one that is disturbed next.
func (l *lane) fixture() string {
	if l.options.small {
		return fixtures[0]
	}
	return fixtures[l.disturbed%len(fixtures)]
}

// worn reports that the lane's objects were disturbed so often that its daemon may soon leave them alone.
func (l *lane) worn() bool {
	n := len(fixtures)
	if l.options.small {
		n = 1
	}
	return l.disturbed >= healings*n
}

// byHand is what a person makes of the fixture: a field of ours, so that it has to be taken back.
const byHand = `{"data":{"key":"by hand"}}`

// disturb edits or deletes the object of a write as a person would. Where the write is of no object that a person could reach (the
// journal, a status, what is outside of the namespace, what is not there yet), it is the fixture: there too somebody may interfere.
func (l *lane) disturb(ctx context.Context, mode proxy.Mode, q apicount.Request) {
	patch := `{"metadata":{"annotations":{"example.com/by-hand":"yes"}}}` // moves the version, and is of no concern to us
	at := slices.IndexFunc(kinds, func(k schema.GroupVersionResource) bool { return k.GroupResource().String() == q.Resource })
	err := errNobodys
	if at >= 0 && q.Name != "" && q.Namespace == l.ns {
		err = l.interfere(ctx, mode, kinds[at], q.Name, patch)
	}
	if errors.Is(err, errNobodys) {
		err = l.interfere(ctx, mode, kinds[0], l.fixture(), byHand)
		l.disturbed++
	}
	l.unwrite(err)
}

// interfere deletes an object, or patches it. Its error is errNobodys where there is none.
func (l *lane) interfere(ctx context.Context, mode proxy.Mode, resource schema.GroupVersionResource, name, patch string) error {
	objects := l.dynamic.Resource(resource).Namespace(l.ns)
	var err error
	if mode == proxy.Delete {
		err = objects.Delete(ctx, name, metav1.DeleteOptions{})
	} else {
		_, err = objects.Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "somebody"})
	}
	if apierrors.IsNotFound(err) {
		return errNobodys
	}
	if err == nil && mode == proxy.Delete {
		l.mu.Lock()
		l.replaced[name] = true
		l.mu.Unlock()
	}
	return err
}

// edit changes a ConfigMap of the release as a person would.
func (l *lane) edit(t *testing.T, name string) {
	t.Helper()
	_, err := l.kube.CoreV1().ConfigMaps(l.ns).Patch(t.Context(), name, types.MergePatchType, []byte(byHand), metav1.PatchOptions{FieldManager: "somebody"})
	if err != nil {
		t.Fatal(err)
	}
}

// errNobodys says that the write was about nothing that a person could disturb.
var errNobodys = errors.New("there was nothing to disturb")

// tidyUp takes back what a disturbance left.
func (l *lane) tidyUp(ctx context.Context) error {
	for _, resource := range kinds {
		list, err := l.dynamic.Resource(resource).Namespace(l.ns).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, u := range list.Items {
			if u.GetAnnotations()["example.com/by-hand"] == "" {
				continue
			}
			_, err := l.dynamic.Resource(resource).Namespace(l.ns).Patch(ctx, u.GetName(), types.MergePatchType,
				[]byte(`{"metadata":{"annotations":{"example.com/by-hand":null}}}`), metav1.PatchOptions{FieldManager: "somebody"})
			if client.IgnoreNotFound(err) != nil {
				return err
			}
		}
	}
	return nil
}

// rolledOut looks, past the daemon and its caches, whether every workload of the lane is what it was asked to be (I8).
func (l *lane) rolledOut(journal.Head) {
	ctx := context.Background()
	list, err := l.kube.AppsV1().Deployments(l.ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		l.violate("I8: %v", err)
		return
	}
	for _, d := range list.Items {
		s := d.Status
		if d.DeletionTimestamp == nil && (s.ObservedGeneration < d.Generation || s.UpdatedReplicas < *d.Spec.Replicas || s.AvailableReplicas < *d.Spec.Replicas || s.Replicas != s.UpdatedReplicas) {
			l.violate("I8: decided while Deployment %s had generation %d, and observed %d: %d of %d updated, %d available, %d in all",
				d.Name, d.Generation, s.ObservedGeneration, s.UpdatedReplicas, *d.Spec.Replicas, s.AvailableReplicas, s.Replicas)
		}
	}
	pods, err := l.kube.CoreV1().Pods(l.ns).List(ctx, metav1.ListOptions{LabelSelector: "app=db"})
	if err != nil {
		l.violate("I8: %v", err)
		return
	}
	for _, p := range pods.Items {
		if ready := podReady(&p); !ready {
			l.violate("I8: decided while pod %s was not ready", p.Name)
		}
	}
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
