package reconcile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/object"
)

// apply carries out one action of the plan, once per process: what a crash left
// undecided is simply applied again, which changes nothing where it was done.
func (r *Reconciler) apply(ctx context.Context, w *work, a Action) error {
	if w.applied(a.Ref) {
		return nil
	}
	o, ok := w.candidate.set.Get(a.Ref)
	if !ok {
		return fmt.Errorf("the plan names %s, which the set has not", a.Ref)
	}
	failpoint.Here(failpoint.ApplyBefore)
	var applied kube.Applied
	var err error
	switch a.Do {
	case Create:
		applied, err = r.create(ctx, w, o)
	case Recreate:
		applied, err = r.recreate(ctx, w, o, a)
	default:
		applied, err = r.update(ctx, w, o, a)
	}
	if err != nil {
		return blame(err, a)
	}
	failpoint.Here(failpoint.ApplyAfter)
	rec := applied.Record
	rec.Rendered, rec.Phase = o.Digest, a.Phase
	w.record(rec, applied.Generation)
	r.tell(Event{Kind: EventApplied, Release: &w.candidate.info, Phase: a.Phase, Object: a.Ref, Message: string(a.Do)})
	return nil
}

// blame names the object in an error that undoes the release; other errors keep their kind.
func blame(err error, a Action) error {
	var wait *pending
	var known *failure
	switch {
	case errors.As(err, &wait), errors.As(err, &known):
		return err
	case a.Late && unserved(err):
		return notServedYet(a)
	case Judge(err) == Fail:
		return &failure{reason: "ApplyFailed", phase: a.Phase, object: a.Ref.String(), message: err.Error()}
	}
	return fmt.Errorf("%s %s: %w", a.Do, a.Ref, err)
}

// unserved reports that the API server does not know the kind. Where its definition came with the same release that
// passes: a server tells of a new kind only some time after it called the definition established, and each replica at its own time.
func unserved(err error) bool {
	var unknown *kube.NoKindError
	return errors.As(err, &unknown)
}

// absent reports that an object is not there: it is gone, or its kind is.
func absent(err error) bool {
	var gone *kube.NotFoundError
	return errors.As(err, &gone) || unserved(err)
}

func notServedYet(a Action) *pending {
	return &pending{what: []string{a.Ref.String() + ": its kind is established, but not served yet"}, after: servedAgain}
}

// servedAgain is when to ask again for a kind that is not served yet.
const servedAgain = 250 * time.Millisecond

// create makes an object that is not there. One that is there already is ours only if it carries this release's stamp.
func (r *Reconciler) create(ctx context.Context, w *work, o object.Object) (kube.Applied, error) {
	pre := kube.Pre{Create: true, Born: w.stamp}
	if failpoint.Without(failpoint.Stamp) {
		pre.Born = ""
	}
	applied, err := r.Cluster.Apply(ctx, o.Body, pre)
	var exists *kube.ExistsError
	if !errors.As(err, &exists) {
		return applied, err
	}
	live, err := r.Cluster.Read(ctx, o.Ref, o.Body.GroupVersionKind().Version)
	if err != nil {
		return kube.Applied{}, err
	}
	born := live.GetAnnotations()[object.BornAnnotation]
	switch {
	case live.GetDeletionTimestamp() != nil:
		return kube.Applied{}, &pending{what: []string{o.Ref.String() + ": an older one is being deleted"}, after: time.Second}
	case born == w.stamp:
		return r.Cluster.Apply(ctx, o.Body, kube.PreOf(live, true))
	case r.bornIn(born, 0, math.MaxInt64) && kube.AppliedByUs(live): // of an older release of ours, which came late
		return r.Cluster.Apply(ctx, o.Body, kube.PreOf(live, true))
	}
	// Not even where it may be adopted: there is no image by which it could be given back.
	return kube.Applied{}, &failure{reason: "Exists", phase: object.Infrastructure, object: o.Ref.String(),
		message: "was made by somebody else while the release ran" + ownedBy(live)}
}

// update changes an object of the inventory, or adopts one, as long as it is the one that was planned.
func (r *Reconciler) update(ctx context.Context, w *work, o object.Object, a Action) (kube.Applied, error) {
	if a.Do == Adopt {
		return r.adopt(ctx, w, o, a)
	}
	live, err := r.live(ctx, o.Ref, a.Version)
	if err != nil {
		return kube.Applied{}, err
	}
	if a.UID != "" && live.GetUID() != a.UID {
		return kube.Applied{}, replaced(a)
	}
	return r.Cluster.Apply(ctx, kube.Strip(o.Body, w.ignored(o.Ref), live), kube.PreOf(live, true))
}

// adopt takes over an object of somebody else. Should the release have been undone by another process meanwhile, that one
// is in no inventory any more, and nobody would give it back: so the head is read after the object, and
// what is given back is moved on (protocol rule 6).
func (r *Reconciler) adopt(ctx context.Context, w *work, o object.Object, a Action) (kube.Applied, error) {
	live, err := r.Cluster.Read(ctx, o.Ref, a.Version)
	if err != nil {
		return kube.Applied{}, err
	}
	if live.GetUID() != a.UID {
		return kube.Applied{}, replaced(a)
	}
	pre := kube.PreOf(live, false)
	pre.Still = r.mine
	if err := pre.Still(ctx); err != nil {
		return kube.Applied{}, err
	}
	return r.Cluster.Apply(ctx, kube.Strip(o.Body, w.ignored(o.Ref), live), pre)
}

func replaced(a Action) *failure {
	return &failure{reason: "Replaced", phase: a.Phase, object: a.Ref.String(), message: "was deleted and made again by somebody else after the plan"}
}

// live reads an object from the watch cache, or from the API server where the cache has it not (an adopted object carries no label yet).
func (r *Reconciler) live(ctx context.Context, ref object.Ref, version string) (*unstructured.Unstructured, error) {
	if l, ok := r.Cluster.Live(ref); ok {
		return l.Object(), nil
	}
	return r.Cluster.Read(ctx, ref, version)
}

// recreate deletes the planned object and makes it anew.
func (r *Reconciler) recreate(ctx context.Context, w *work, o object.Object, a Action) (kube.Applied, error) {
	live, err := r.Cluster.Read(ctx, o.Ref, a.Version)
	var gone *kube.NotFoundError
	if errors.As(err, &gone) {
		return r.create(ctx, w, o)
	}
	if err != nil {
		return kube.Applied{}, err
	}
	if live.GetUID() != a.UID {
		return r.create(ctx, w, o) // finds our stamp on it, or says that it is somebody else's
	}
	if live.GetDeletionTimestamp() == nil {
		if err := r.Cluster.Delete(ctx, o.Ref, a.Version, live.GetUID(), live.GetResourceVersion()); err != nil {
			return kube.Applied{}, err
		}
	}
	if _, err := r.Cluster.Read(ctx, o.Ref, a.Version); errors.As(err, &gone) {
		return r.create(ctx, w, o)
	}
	return kube.Applied{}, &pending{what: []string{o.Ref.String() + ": is being deleted, to be made again"}, after: time.Second}
}

// barrier dry-runs what could not be judged before its namespace or kind was there (S5).
func (r *Reconciler) barrier(ctx context.Context, w *work) error {
	late := slices.DeleteFunc(slices.Clone(w.plan.Actions), func(a Action) bool { return !a.Late })
	if len(late) == 0 {
		return nil
	}
	failpoint.Here(failpoint.Barrier)
	if err := r.watch(ctx, w.candidate.set, w.base); err != nil {
		return err
	}
	var mu sync.Mutex
	var faults []string
	err := each(ctx, late, func(ctx context.Context, a Action) error {
		if _, here := r.Cluster.Live(a.Ref); here || w.applied(a.Ref) {
			return nil // applied before a crash
		}
		o, _ := w.candidate.set.Get(a.Ref)
		_, err := r.Cluster.DryRun(ctx, o.Body, kube.Pre{Create: true})
		var exists *kube.ExistsError
		if err == nil || errors.As(err, &exists) {
			return nil // create decides whose it is
		}
		if unserved(err) {
			return notServedYet(a)
		}
		if Judge(err) != Fail {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		faults = append(faults, fmt.Sprintf("%s: %v", a.Ref, err))
		return nil
	})
	if err == nil && len(faults) == 0 {
		return r.watch(ctx, w.candidate.set, w.base) // what is served only now
	}
	if err != nil {
		return err
	}
	slices.Sort(faults)
	return &failure{reason: "DryRunFailed", phase: object.Infrastructure, object: objectOf(faults[0]),
		message: fmt.Sprintf("%d objects are refused by the API server, the first: %s", len(faults), faults[0])}
}

// pruneEarly deletes what must go before its successor comes.
func (r *Reconciler) pruneEarly(ctx context.Context, w *work, phase object.Phase) error {
	for _, a := range w.plan.Actions {
		if !a.Early || a.Do != Prune || a.Phase != phase || w.applied(a.Ref) {
			continue
		}
		if err := r.prune(ctx, a); err != nil {
			return blame(err, a)
		}
		live, err := r.Cluster.Read(ctx, a.Ref, a.Version)
		var gone *kube.NotFoundError
		switch {
		case err == nil && live.GetUID() == a.UID:
			return &pending{what: []string{a.Ref.String() + ": is being deleted before its successor comes"}, after: 200 * time.Millisecond}
		case err != nil && !errors.As(err, &gone):
			return blame(err, a)
		}
		w.record(object.Record{Ref: a.Ref}, 0)
	}
	return nil
}

// prune deletes the object that was planned, and no other that took its name. A resourceVersion that moved meanwhile is read again.
func (r *Reconciler) prune(ctx context.Context, a Action) error {
	uid, version := a.UID, ""
	if l, ok := r.Cluster.Live(a.Ref); ok && l.UID == uid {
		version = l.ResourceVersion
	}
	for try := 0; ; try++ {
		if version == "" {
			live, err := r.Cluster.Read(ctx, a.Ref, a.Version)
			var gone *kube.NotFoundError
			if errors.As(err, &gone) {
				return nil
			}
			if err != nil {
				return err
			}
			if live.GetUID() != uid {
				return nil // what was planned is gone
			}
			if owner := live.GetLabels()[object.EnvironmentLabel]; owner != "" && owner != string(r.Environment.UID) {
				return nil // another environment has taken it over
			}
			version = live.GetResourceVersion()
		}
		failpoint.Here(failpoint.PruneBefore)
		err := r.Cluster.Delete(ctx, a.Ref, a.Version, uid, version)
		var conflict *kube.ConflictError
		if !errors.As(err, &conflict) || try == 4 {
			return err
		}
		version = ""
	}
}
