package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/health"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/kube/fields"
	"github.com/nexus-platform/reconciler/object"
)

// failure is why a release is undone.
type failure struct {
	reason  string // CamelCase
	phase   object.Phase
	object  string
	message string
}

func (f *failure) Error() string {
	return "phase " + f.phase.String() + ": " + because(f.object, f.reason, f.message)
}

// because joins what is known of a reason.
func because(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}

// pending says that a phase is not done yet: the pass returns, and watch events bring the environment back.
type pending struct {
	what  []string
	after time.Duration // look again even if nothing happens; 0: only at an event or the phase's time-out
}

func (p *pending) Error() string { return fmt.Sprintf("waits for %v", p.what) }

// add waits for one more object. Where only time changes the verdict (a grace that ends), it says when to look again.
func (p *pending) add(ref object.Ref, v health.Verdict) {
	p.what = append(p.what, fmt.Sprintf("%s: %s", ref, describe(v)))
	if v.Again > 0 && (p.after == 0 || v.Again < p.after) {
		p.after = v.Again
	}
}

// execute carries the open release through its phases as far as they go (S4 to S8). Each
// step is safe to repeat: what this process has not applied itself is applied again.
func (r *Reconciler) execute(ctx context.Context, h journal.Head) (Result, error) {
	w, err := r.load(ctx, h)
	if err != nil {
		return Result{Head: h}, err
	}
	for _, phase := range object.Phases {
		err := r.phase(ctx, w, phase)
		if err == nil {
			delete(w.waiting, phase) // should it wait again, that is another wait
			w.done[phase] = true
			w.troubled = time.Time{}
			continue
		}
		return r.stuck(ctx, h, w, phase, err)
	}
	if failpoint.Without(failpoint.DestroyLate) {
		if err := r.prunes(ctx, w); err != nil {
			return Result{Head: h}, err
		}
	}
	return r.decide(ctx, h, w)
}

// stuck decides what follows from a phase that did not end: wait, try again, or undo.
func (r *Reconciler) stuck(ctx context.Context, h journal.Head, w *work, phase object.Phase, err error) (Result, error) {
	var wait *pending
	if errors.As(err, &wait) {
		return r.wait(ctx, h, w, phase, wait)
	}
	var fault *failure
	if errors.As(err, &fault) {
		return r.abort(ctx, h, w, fault)
	}
	switch Judge(err) {
	case Fail:
		return r.abort(ctx, h, w, &failure{reason: "ApplyFailed", phase: phase, message: err.Error()})
	case Again:
		if w.troubled.IsZero() {
			w.troubled = r.Now()
		}
		if patience := w.candidate.policy.Spec.Patience.Duration; r.Now().Sub(w.troubled) > patience {
			return r.abort(ctx, h, w, &failure{reason: "OutOfPatience", phase: phase,
				message: fmt.Sprintf("the cluster could not be reached for %s: %v", patience, err)})
		}
	}
	return Result{Head: h}, fmt.Errorf("release %d: phase %s: %w", h.Release.Number, phase, err)
}

// phase applies what the phase holds and looks whether it is done.
func (r *Reconciler) phase(ctx context.Context, w *work, phase object.Phase) error {
	if phase > w.told {
		failpoint.Here(failpoint.PhaseBegin)
		w.told = phase
		r.tell(Event{Kind: EventPhase, Release: &w.candidate.info, Phase: phase})
	}
	switch phase {
	case object.Verification:
		return r.verify(ctx, w)
	case object.Validation:
		return r.check(ctx, w)
	}
	if err := r.pruneEarly(ctx, w, phase); err != nil {
		return err
	}
	actions := w.plan.in(phase)
	if phase == object.Infrastructure {
		rest, err := r.foundation(ctx, w, actions)
		if err != nil {
			return err
		}
		actions = rest
	}
	if err := r.waves(ctx, w, phase, actions); err != nil {
		return err
	}
	return r.healthy(ctx, w, phase, actions)
}

// foundation applies the Namespaces and the definitions that others need, then holds the
// barrier: what could only be checked offline is now proved by the API server, before any other write.
func (r *Reconciler) foundation(ctx context.Context, w *work, actions []Action) (rest []Action, err error) {
	var first []Action
	for _, a := range actions {
		if a.Ref.Kind == "Namespace" || a.Ref.Kind == "CustomResourceDefinition" {
			first = append(first, a)
		} else {
			rest = append(rest, a)
		}
	}
	if w.proved {
		return rest, nil
	}
	if err := each(ctx, first, func(ctx context.Context, a Action) error { return r.apply(ctx, w, a) }); err != nil {
		return nil, err
	}
	if err := r.healthy(ctx, w, object.Infrastructure, first); err != nil {
		return nil, err
	}
	if err := r.barrier(ctx, w); err != nil {
		return nil, err
	}
	w.proved = true
	return rest, nil
}

// waves applies the actions of a phase in dependency and kind order.
func (r *Reconciler) waves(ctx context.Context, w *work, phase object.Phase, actions []Action) error {
	byRef := make(map[object.Ref]Action, len(actions))
	objects := make([]object.Object, 0, len(actions))
	for _, a := range actions {
		o, ok := w.candidate.set.Get(a.Ref)
		if !ok {
			return fmt.Errorf("the plan names %s, which the set has not", a.Ref)
		}
		byRef[a.Ref] = a
		objects = append(objects, o)
	}
	waves, err := object.Waves(objects)
	if err != nil {
		return err
	}
	for _, wave := range waves {
		err := each(ctx, wave.Objects, func(ctx context.Context, o object.Object) error { return r.apply(ctx, w, byRef[o.Ref]) })
		if err != nil {
			return err
		}
		awaited := make([]Action, 0, len(wave.Await))
		for _, ref := range wave.Await {
			awaited = append(awaited, byRef[ref])
		}
		if err := r.healthy(ctx, w, phase, awaited); err != nil {
			return err
		}
	}
	return nil
}

// healthy judges what was applied: nil, a *pending, or a *failure.
func (r *Reconciler) healthy(ctx context.Context, w *work, phase object.Phase, actions []Action) error {
	var wait pending
	for _, a := range actions {
		if isInert(a.Ref, w.candidate.policy) {
			continue
		}
		v := r.verdict(w.candidate.judge, a.Ref, health.Expectation{Generation: w.want(a.Ref), First: a.Do == Create})
		switch {
		case v.State == health.Healthy, v.State == health.Missing && w.ended(a.Ref):
		case v.Fatal:
			return &failure{reason: v.Reason, phase: phase, object: a.Ref.String(), message: describe(v)}
		case v.State == health.Missing && w.applied(a.Ref):
			if err := r.missing(ctx, w, phase, a.Ref, a.Version, &wait, v); err != nil {
				return err
			}
		default:
			wait.add(a.Ref, v)
		}
	}
	if len(wait.what) > 0 {
		return &wait
	}
	return nil
}

// missing waits for an object that was applied and that the watch does not show yet; one that somebody deleted ends the wait. At the
// first look it is not asked for: the watch is some milliseconds behind.
func (r *Reconciler) missing(ctx context.Context, w *work, phase object.Phase, ref object.Ref, version string, wait *pending, v health.Verdict) error {
	if _, waits := w.waiting[phase]; waits {
		_, err := r.Cluster.Read(ctx, ref, version)
		var gone *kube.NotFoundError
		switch {
		case errors.As(err, &gone):
			return &failure{reason: "Deleted", phase: phase, object: ref.String(), message: "was deleted by somebody while the release ran"}
		case err != nil:
			return err
		}
	}
	v.Again = missingAgain
	wait.add(ref, v)
	return nil
}

// missingAgain is when to ask for an object that the watch does not show: if it is gone, no event tells so any more.
const missingAgain = time.Second

// describe writes a verdict for people, with the pod that shows what is wrong. What a container said at its end may hold anything.
func describe(v health.Verdict) string { return because(v.Reason, fields.Redact(v.Message)) }

// wait records in the head what the release waits for, once per phase, and returns.
func (r *Reconciler) wait(ctx context.Context, h journal.Head, w *work, phase object.Phase, p *pending) (Result, error) {
	w.troubled = time.Time{}
	if phase < object.Verification {
		w.healthy = time.Time{} // what is all healthy again has to stay so again
	}
	began, known := w.waiting[phase]
	if !known {
		began.since = r.Now()
		if !w.done[phase] && h.Release.Phase == phase && !h.Release.PhaseBegan.IsZero() { // this process took the wait over
			began.since = h.Release.PhaseBegan
		}
		w.waiting[phase] = began
	}
	limit := w.candidate.policy.Timeout(phase)
	left := limit - r.Now().Sub(began.since)
	if left <= 0 {
		return r.abort(ctx, h, w, &failure{reason: "Timeout", phase: phase, object: objectOf(p.what[0]),
			message: fmt.Sprintf("not done after %s: %s", limit, p.what[0])})
	}
	if h.Release.Phase != phase {
		var err error
		if h, err = r.swap(ctx, h, h.Wait(phase, r.Now(), slices.Clone(p.what))); err != nil {
			return Result{}, fmt.Errorf("release %d: record what phase %s waits for: %w", h.Number, phase, err)
		}
	}
	r.tell(Event{Kind: EventWaiting, Release: &w.candidate.info, Phase: phase, Waiting: p.what})
	after := left
	if p.after > 0 {
		after = min(left, p.after)
	}
	return Result{Head: h, After: after, Waiting: p.what, Why: "waits in phase " + phase.String()}, nil
}

// objectOf is the object in "Kind/namespace/name: why".
func objectOf(what string) string {
	for i := range what {
		if what[i] == ':' {
			return what[:i]
		}
	}
	return what
}
