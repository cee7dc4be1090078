package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/object"
)

// abort turns the release round: from here on it is undone (R1).
func (r *Reconciler) abort(ctx context.Context, h journal.Head, w *work, f *failure) (Result, error) {
	failpoint.Here(failpoint.AbortBefore)
	h, err := r.swap(ctx, h, h.Abort(journal.Failure{Reason: f.reason, Phase: f.phase, Object: f.object, Message: f.message}))
	if err != nil {
		return Result{}, fmt.Errorf("turn release %d round: %w", w.candidate.info.Number, err)
	}
	r.tell(Event{Kind: EventAborting, Release: &w.candidate.info, Phase: f.phase, Message: f.Error()})
	return r.undo(ctx, h)
}

// undo takes the open release back (R2, R3): everything that it changed is applied as
// the last good release declared it, then what it created is removed. It does not wait for health.
func (r *Reconciler) undo(ctx context.Context, h journal.Head) (Result, error) {
	w, err := r.load(ctx, h)
	if err != nil {
		return Result{Head: h}, r.halt(h, err)
	}
	if h.Good == nil && h.Release.Kind == KindDeploy && h.Release.Failure.Reason != reasonSuperseded && (r.Environment.Spec.OnFirstFailure != "undo" || overLeftovers(h)) {
		return r.keep(ctx, h, w)
	}
	if w.undoing == nil {
		w.undoing = &undoing{r: r, w: w, records: w.before.ByRef(), restored: map[object.Ref]bool{}}
	}
	u := w.undoing
	u.removed = false
	for _, a := range u.created() { // what could refuse the restoring goes first
		if guards(a.Ref) {
			if err := u.remove(ctx, a); err != nil {
				return r.undoLater(h, err)
			}
		}
	}
	if u.removed {
		return r.undoLater(h, &pending{what: []string{"admission: what this release brought is gone, which takes the API server a moment to know"}, after: time.Second})
	}
	if err := each(ctx, u.grounds(), u.ground); err != nil {
		return r.undoLater(h, err)
	}
	for _, phase := range object.Phases {
		if err := each(ctx, u.changed(phase), u.restore); err != nil {
			return r.undoLater(h, err)
		}
	}
	for _, a := range u.created() {
		if err := u.remove(ctx, a); err != nil {
			return r.undoLater(h, err)
		}
	}
	inv := make(object.Inventory, 0, len(u.records))
	for _, rec := range u.records {
		inv = append(inv, rec)
	}
	digest, err := r.storeInventory(ctx, inv)
	if err != nil {
		return Result{Head: h}, err
	}
	slices.Sort(u.kept)
	outcome := v1alpha1.Reverted
	if h.Release.Failure.Reason == reasonSuperseded {
		outcome = v1alpha1.Superseded
	}
	return r.undone(ctx, h, w, digest, outcome, u.kept)
}

const reasonSuperseded = "Superseded"

// undoing is the way back, over as many passes as it takes.
type undoing struct {
	r *Reconciler
	w *work

	mu       sync.Mutex
	records  map[object.Ref]object.Record
	restored map[object.Ref]bool // by this process: once is enough
	kept     []string
	removed  bool // something was deleted in this pass
	sofar    int  // how many were restored when it was last seen to go on
	since    time.Time
}

// stood is how long the undo has restored and removed nothing.
func (u *undoing) stood(now time.Time) time.Duration {
	if u.removed || u.sofar != len(u.restored) || u.since.IsZero() {
		u.sofar, u.since = len(u.restored), now
	}
	return now.Sub(u.since)
}

// changed are the actions of a phase that touched what was there before.
func (u *undoing) changed(phase object.Phase) []Action {
	var out []Action
	for _, a := range u.w.plan.Actions {
		if a.Phase != phase || a.Do == Keep || (a.Do == Prune && !a.Early) {
			continue
		}
		if _, was := u.w.base.inventory[a.Ref]; was || a.Do == Adopt {
			out = append(out, a)
		}
	}
	return out
}

// created are the newcomers, last first.
func (u *undoing) created() []Action {
	var out []Action
	for _, a := range u.w.plan.Actions {
		if _, was := u.w.base.inventory[a.Ref]; a.Do == Create && !was {
			out = append(out, a)
		}
	}
	slices.Reverse(out)
	return out
}

// restore applies an object as the last good release declared it, or gives an adopted one back.
func (u *undoing) restore(ctx context.Context, a Action) error {
	u.mu.Lock()
	done := u.restored[a.Ref]
	u.mu.Unlock()
	if done {
		return nil
	}
	if err := u.takeBack(ctx, a); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.restored[a.Ref] = true
	return nil
}

func (u *undoing) takeBack(ctx context.Context, a Action) error {
	failpoint.Here(failpoint.UndoBefore)
	if a.Do == Adopt {
		err := u.r.Cluster.Restore(ctx, u.w.images[a.Ref], u.r.mine)
		var replaced *kube.ConflictError
		if err == nil || absent(err) || errors.As(err, &replaced) && replaced.Replaced {
			return nil // somebody deleted what was adopted: there is nothing to give back
		}
		return fmt.Errorf("give %s back: %w", a.Ref, err)
	}
	rec := u.w.base.inventory[a.Ref]
	o, ok := u.w.base.set.Get(a.Ref)
	if !ok {
		return nil // only the inventory had it: it was on its way out and may go
	}
	live, err := u.r.Cluster.Read(ctx, a.Ref, rec.Version)
	var gone *kube.NotFoundError
	switch {
	case errors.As(err, &gone):
		return u.write(ctx, o, rec, nil)
	case unserved(err) && u.definitions()[a.Ref.GroupKind()].Name != "": // it was made again just now
		return notServedYet(a)
	case err != nil:
		return fmt.Errorf("restore %s: %w", a.Ref, err)
	case live.GetDeletionTimestamp() != nil:
		return &pending{what: []string{a.Ref.String() + ": " + ending(live)}, after: time.Second}
	}
	if !kube.Touched(live, rec) && !u.w.applied(a.Ref) {
		return nil // never touched
	}
	return u.write(ctx, o, rec, live)
}

// write applies the old body; an immutable field that was changed by recreation is changed back the same way.
func (u *undoing) write(ctx context.Context, o object.Object, rec object.Record, live *unstructured.Unstructured) error {
	pre := kube.Pre{Create: true, Born: u.w.stamp}
	body := o.Body
	if live != nil {
		pre = kube.PreOf(live, true)
		body = kube.Strip(o.Body, u.w.base.ignored(o.Ref), live)
	}
	applied, err := u.r.Cluster.Apply(ctx, body, pre)
	var invalid *kube.InvalidError
	if live != nil && errors.As(err, &invalid) && invalid.Immutable && live.GetAnnotations()[object.BornAnnotation] == u.w.stamp {
		if err := u.r.Cluster.Delete(ctx, o.Ref, rec.Version, live.GetUID(), live.GetResourceVersion()); err != nil {
			return fmt.Errorf("delete %s, to restore it: %w", o.Ref, err)
		}
		return &pending{what: []string{o.Ref.String() + ": is being deleted, to be made again"}, after: 200 * time.Millisecond}
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", o.Ref, err)
	}
	back := applied.Record
	back.Rendered, back.Phase = o.Digest, rec.Phase
	u.mu.Lock()
	defer u.mu.Unlock()
	u.records[o.Ref] = back
	return nil
}

// remove deletes what this release created and nobody else depends on; what may hold data or the work of others stays, without our mark.
func (u *undoing) remove(ctx context.Context, a Action) error {
	live, err := u.r.Cluster.Read(ctx, a.Ref, a.Version)
	if absent(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", a.Ref, err)
	}
	if live.GetAnnotations()[object.BornAnnotation] != u.w.stamp || live.GetDeletionTimestamp() != nil || live.GetLabels()[object.EnvironmentLabel] != string(u.r.Environment.UID) {
		return nil
	}
	stays, err := u.r.holdsMore(ctx, u.w.candidate.policy, live)
	if err != nil {
		return fmt.Errorf("look into %s: %w", a.Ref, err)
	}
	if stays {
		if err := u.r.Cluster.Disown(ctx, live); err != nil {
			return fmt.Errorf("let go of %s: %w", a.Ref, err)
		}
		u.kept = append(u.kept, a.Ref.String())
		return nil
	}
	failpoint.Here(failpoint.UndoRemove)
	u.removed = true
	return u.r.prune(ctx, Action{Ref: a.Ref, Version: a.Version, UID: live.GetUID()})
}

// holdsMore reports newcomers that undo must not delete: a claim that is bound may hold
// data; a Namespace or a definition may hold what others made.
func (r *Reconciler) holdsMore(ctx context.Context, p *v1alpha1.ReleasePolicy, live *unstructured.Unstructured) (bool, error) {
	switch live.GetKind() {
	case "PersistentVolumeClaim":
		phase, _, _ := unstructured.NestedString(live.Object, "status", "phase")
		return phase == "Bound", nil
	case "PersistentVolume":
		return true, nil
	case "Namespace", "CustomResourceDefinition":
		empty, err := r.Cluster.Empty(ctx, live)
		return !empty, err
	}
	return bearsData(p, live.GroupVersionKind().GroupKind()), nil
}

// guards reports kinds by which the API server may refuse writes to other objects.
func guards(ref object.Ref) bool {
	switch ref.Group {
	case "admissionregistration.k8s.io", "apiregistration.k8s.io":
		return true
	case "":
		return ref.Kind == "ResourceQuota" || ref.Kind == "LimitRange"
	}
	return false
}

// undone closes the release: the environment is on the last good commit again, and this one is remembered as bad.
func (r *Reconciler) undone(ctx context.Context, h journal.Head, w *work, inventory string, outcome v1alpha1.Outcome, kept []string) (Result, error) {
	f := h.Release.Failure
	info := w.candidate.info
	info.Outcome, info.Reason, info.Object, info.Kept, info.Ended = outcome, f.Reason, f.Object, kept, r.Now()
	info.Changes = w.plan.Counts()
	info.Message = because(fmt.Sprintf("%s in phase %s", f.Reason, f.Phase), f.Object, f.Message)
	if outcome == v1alpha1.Halted {
		info.Message += "; this was the first release, so its objects were kept: push a commit that mends it"
		if !overLeftovers(h) {
			info.Message += fmt.Sprintf(", or set onFirstFailure: undo and run `reconciler retry %s --namespace %s`", r.Environment.Name, r.Environment.Namespace)
		}
	}
	failpoint.Here(failpoint.UndoneBefore)
	h, err := r.swap(ctx, h, h.Undone(journal.Outcome{Outcome: string(outcome), Reason: f.Reason, Phase: f.Phase, Object: f.Object, Message: info.Message, FinishedAt: r.Now(), Kept: kept}, inventory, outcome != v1alpha1.Superseded && !failpoint.Without(failpoint.Quarantine)))
	if err != nil {
		return Result{}, fmt.Errorf("close release %d: %w", info.Number, err)
	}
	r.work, r.good = nil, nil
	r.tell(Event{Kind: EventEnded, Release: &info, Phase: f.Phase, Message: info.Message})
	return Result{Head: h, Why: string(outcome)}, nil
}
