package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/health"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/object"
)

// changes takes what changed in the cluster since the last look: everything that is owned or carries our label if nobody has
// looked yet, or if the watch cannot say what it is.
func (r *Reconciler) changes(base *world) map[object.Ref]bool {
	changed := r.takeDirty()
	if r.looked && !changed[object.Ref{}] {
		return changed
	}
	all := make(map[object.Ref]bool, len(base.inventory))
	for ref := range base.inventory {
		all[ref] = true
	}
	for _, ref := range r.Cluster.Owned() {
		all[ref] = true
	}
	return all
}

// look brings the list of drifted objects up to date: only what changed is compared.
func (r *Reconciler) look(base *world, changed map[object.Ref]bool) error {
	if r.drifted == nil {
		r.drifted = map[object.Ref]v1alpha1.Drift{}
	}
	for ref := range changed {
		rec, owned := base.inventory[ref]
		if !owned {
			continue
		}
		d, err := r.compare(base, rec)
		if err != nil {
			return fmt.Errorf("compare %s: %w", ref, err)
		}
		if d == nil {
			delete(r.drifted, ref)
		} else {
			r.drifted[ref] = *d
		}
	}
	return nil
}

// compare finds drift of one object: a managed field whose live value is no longer the one applied.
func (r *Reconciler) compare(base *world, rec object.Record) (*v1alpha1.Drift, error) {
	now := metav1.NewTime(r.Now())
	live, here := r.Cluster.Live(rec.Ref)
	if o, declared := base.set.Get(rec.Ref); !here && declared && endsItself(o.Body) {
		return nil, nil
	}
	if !here {
		verb := "deleted"
		if r.Cluster.Unlabelled(rec.Ref) {
			verb = "unlabelled"
		}
		return &v1alpha1.Drift{Object: rec.Ref.String(), Verb: verb, Manager: "unknown", At: now}, nil
	}
	if live.Deleting || rec.Live == "" {
		return nil, nil
	}
	o, declared := base.set.Get(rec.Ref)
	if !declared {
		return nil, nil // on its way out
	}
	if rec.UID != live.UID && r.bornIn(live.Born, 0, math.MaxInt64) {
		rec.UID = live.UID // we made it again ourselves, and only the journal's inventory does not know yet
	}
	report, err := r.Cluster.Drift(live, rec, o.Body, base.ignored(rec.Ref))
	if err != nil || report == nil {
		return nil, err
	}
	if report.Manager == "kube-controller-manager" && report.Operation == "Update/scale" {
		return nil, nil // an autoscaler that is not in Git: the replicas are its own
	}
	d := &v1alpha1.Drift{Object: rec.Ref.String(), Verb: report.Verb, Manager: report.Manager, At: now}
	if !report.At.IsZero() {
		d.At = metav1.NewTime(report.At)
	}
	for _, f := range report.Fields {
		d.Fields = append(d.Fields, f.String())
	}
	return d, nil
}

// repair applies again what the head already declares, wherever the cluster differs.
// It is no release: it runs in the environment's turn, without a head write.
func (r *Reconciler) repair(ctx context.Context, h journal.Head, suspended bool) (Result, error) {
	res := Result{Head: h}
	if h.Good == nil {
		return res, nil
	}
	base, err := r.deployed(ctx, h)
	if err != nil {
		return res, r.halt(h, err)
	}
	if err := r.watch(ctx, base.set, base); err != nil {
		return res, err
	}
	changed := r.changes(base)
	if err := r.look(base, changed); err != nil {
		r.markDirty(changed)
		return res, err
	}
	r.looked = true
	r.feel(base, changed)
	for _, ref := range slices.SortedFunc(maps.Keys(r.unwell), object.Ref.Compare) {
		res.Ill = fmt.Sprintf("%s: %s", ref, describe(r.unwell[ref]))
		break
	}
	if r.Now().Before(h.BakeUntil) {
		res.After = h.BakeUntil.Sub(r.Now())
		if r.ill(h) != nil && h.Previous != nil && h.Pin == nil && !suspended {
			res.After = 1 // the next pass goes back
		}
	}
	if !suspended {
		after, herr := r.heal(ctx, h, base)
		if after > 0 && (res.After == 0 || after < res.After) {
			res.After = after
		}
		if err = errors.Join(herr, r.sweep(ctx, h, base, changed)); err != nil {
			r.markDirty(changed)
		}
	}
	err = errors.Join(err, r.Journal.Rest(ctx, h))
	for _, ref := range slices.SortedFunc(maps.Keys(r.drifted), object.Ref.Compare) {
		res.Drifted = append(res.Drifted, r.drifted[ref])
	}
	return res, err
}

// flap remembers how often an object drifted and was healed lately.
type flap struct {
	times []time.Time
	quiet time.Time // healing pauses until then
	told  string    // the drift that was told last, so that it is told once
}

const (
	flapWindow = time.Hour
	flapLimit  = 3
	flapPause  = 10 * time.Minute
)

// heal repairs every drifted object whose policy says so. What drifts again and again
// is reported as flapping and left alone for a while, so that two writers do not fight for ever.
func (r *Reconciler) heal(ctx context.Context, h journal.Head, base *world) (time.Duration, error) {
	if r.flaps == nil {
		r.flaps = map[object.Ref]*flap{}
	}
	var (
		todo []object.Record
		next time.Duration
		now  = r.Now()
	)
	for ref, d := range r.drifted {
		f := r.flaps[ref]
		if f == nil {
			f = &flap{}
			r.flaps[ref] = f
		}
		f.times = slices.DeleteFunc(f.times, func(t time.Time) bool { return now.Sub(t) > flapWindow })
		o, declared := base.set.Get(ref)
		mode := v1alpha1.DriftReport
		if declared {
			mode = driftMode(base.policy, o.Body)
		}
		ours := d.Manager == object.FieldManager // a late write of an older epoch: always taken back
		switch {
		case mode == v1alpha1.DriftIgnore && !ours:
			delete(r.drifted, ref)
			continue
		case mode == v1alpha1.DriftReport && !ours:
			d.Action = "reported"
		case now.Before(f.quiet):
			d.Action = "flapping"
			if left := f.quiet.Sub(now); next == 0 || left < next {
				next = left
			}
		case len(f.times) >= flapLimit:
			f.quiet, f.times = now.Add(flapPause), nil
			d.Action, next = "flapping", flapPause
		default:
			d.Action = "healed"
			todo = append(todo, base.inventory[ref])
		}
		d.Count = int32(len(f.times))
		if d.Action == "healed" {
			d.Count++
		}
		r.drifted[ref] = d
		r.tellDrift(ref, f, d)
	}
	if len(todo) == 0 {
		return next, nil
	}
	if err := r.stillHead(ctx, h.Epoch); err != nil {
		return next, err
	}
	var mu sync.Mutex
	var faults []error
	err := each(ctx, todo, func(ctx context.Context, rec object.Record) error {
		healed, err := r.healOne(ctx, h, base, rec)
		mu.Lock()
		defer mu.Unlock()
		if err != nil { // one that cannot be healed does not keep the others from it
			faults = append(faults, fmt.Errorf("heal %s: %w", rec.Ref, err))
			return nil
		}
		base.inventory[rec.Ref] = healed
		r.flaps[rec.Ref].times = append(r.flaps[rec.Ref].times, now)
		delete(r.drifted, rec.Ref)
		return nil
	})
	return next, errors.Join(append(faults, err)...)
}

// stillHead makes sure that nobody else has moved the head before something is written that no head write fences: a
// process that was away for longer than its Lease would else take a newer release for drift.
func (r *Reconciler) stillHead(ctx context.Context, epoch int64) error {
	now, err := r.Journal.Head(ctx)
	if err != nil {
		return fmt.Errorf("read the head before a write: %w", err)
	}
	if now.Epoch != epoch || now.Missing() {
		return fmt.Errorf("the head was written by somebody else: %w", journal.ErrConflict)
	}
	return nil
}

// mine makes sure that the open release is still this process's own.
func (r *Reconciler) mine(ctx context.Context) error { return r.stillHead(ctx, r.epoch) }

// tellDrift tells each observation once.
func (r *Reconciler) tellDrift(ref object.Ref, f *flap, d v1alpha1.Drift) {
	same := d.Verb + d.Manager + d.Action + strings.Join(d.Fields, "\n") + strconv.Itoa(int(d.Count))
	if f.told == same && d.Action != "healed" {
		return
	}
	f.told = same
	r.tell(Event{Kind: EventDrift, Object: ref, Drift: &d, Message: d.Action})
}

// healOne applies one object as it is declared. Its new record stays in memory: the digests of the journal's are the same but for a UID.
func (r *Reconciler) healOne(ctx context.Context, h journal.Head, base *world, rec object.Record) (object.Record, error) {
	o, _ := base.set.Get(rec.Ref)
	body, pre := o.Body, kube.Pre{Create: true, Born: stamp(r.Environment.UID, h.Epoch)}
	if l, here := r.Cluster.Live(rec.Ref); here {
		live := l.Object()
		body, pre = kube.Strip(o.Body, base.ignored(rec.Ref), live), kube.PreOf(live, true)
	} else if r.Cluster.Unlabelled(rec.Ref) {
		live, err := r.Cluster.Read(ctx, rec.Ref, rec.Version)
		if err != nil {
			return rec, err
		}
		body, pre = kube.Strip(o.Body, base.ignored(rec.Ref), live), kube.PreOf(live, true)
	}
	applied, err := r.Cluster.Apply(ctx, body, pre)
	if err != nil {
		return rec, err
	}
	healed := applied.Record
	healed.Rendered, healed.Phase = o.Digest, rec.Phase
	return healed, nil
}

// sweep deletes strays: objects with our label that no inventory has. They are creates
// of an older epoch that arrived late, found by their stamp (protocol rule 6).
func (r *Reconciler) sweep(ctx context.Context, h journal.Head, base *world, changed map[object.Ref]bool) error {
	for ref := range changed {
		if _, owned := base.inventory[ref]; owned || failpoint.Without(failpoint.Sweep) {
			continue
		}
		live, here := r.Cluster.Live(ref)
		if !here || live.Deleting || !r.bornIn(live.Born, h.Since, h.Epoch) {
			continue
		}
		// A copy that somebody made of an object of ours has its marks, but was not applied by us.
		if o := live.Object(); !kube.AppliedByUs(o) || metav1.GetControllerOf(o) != nil {
			continue
		}
		stays, err := r.holdsMore(ctx, base.policy, live.Object()) // as in an undo that would have met it
		if err != nil {
			return fmt.Errorf("look into %s, a late write of an older release: %w", ref, err)
		}
		if stays {
			continue
		}
		err = r.Cluster.Delete(ctx, ref, live.Version, live.UID, live.ResourceVersion)
		var conflict *kube.ConflictError
		if err != nil && !errors.As(err, &conflict) {
			return fmt.Errorf("sweep %s, a late write of an older release: %w", ref, err)
		}
	}
	return nil
}

// bornIn reports that an object was created by a release of this environment between two epochs. What a journal left that is gone
// is no late write: nothing says that it may go.
func (r *Reconciler) bornIn(born string, first, last int64) bool {
	uid, number, ok := strings.Cut(born, "/")
	if !ok || uid != string(r.Environment.UID) {
		return false
	}
	n, err := strconv.ParseInt(number, 10, 64)
	return err == nil && first <= n && n <= last
}

// feel judges what changed in the cluster since the last look, and keeps what has failed for
// good. While the last release bakes, that sends the environment back (S15); later it is only told.
func (r *Reconciler) feel(base *world, changed map[object.Ref]bool) {
	if r.unwell == nil {
		r.unwell = map[object.Ref]health.Verdict{}
	}
	for ref := range changed {
		delete(r.unwell, ref)
		if _, declared := base.set.Get(ref); !declared || isInert(ref, base.policy) {
			continue
		}
		if v := r.verdict(base.judge, ref, health.Expectation{}); v.Fatal {
			r.unwell[ref] = v
		}
	}
}

// ill is what has failed since the decision, the first in order; what was ill then already does not count.
func (r *Reconciler) ill(h journal.Head) *health.Verdict {
	for _, ref := range slices.SortedFunc(maps.Keys(r.unwell), object.Ref.Compare) {
		if h.Good != nil && !slices.Contains(h.Good.Ill, ref.String()) {
			v := r.unwell[ref]
			return &v
		}
	}
	return nil
}
