package reconcile

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/health"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/probe"
)

// verify is phase 7: the whole set is judged together and stays healthy for settle.
// What was ill before and is not touched only warns (the baseline), so that a fix can pass; what was on its way then,
// perhaps because a release was undone just before, gets some time to arrive.
func (r *Reconciler) verify(ctx context.Context, w *work) error {
	actions := w.plan.byRef()
	var wait pending
	for _, o := range w.candidate.set.Objects {
		if isInert(o.Ref, w.candidate.policy) {
			continue
		}
		a, touched := actions[o.Ref]
		v := r.verdict(w.candidate.judge, o.Ref, health.Expectation{Generation: w.want(o.Ref), First: a.Do == Create})
		if v.State == health.Healthy || v.State == health.Missing && endsItself(o.Body) && (!touched || w.applied(o.Ref)) {
			continue
		}
		if was, ill := w.plan.Baseline[o.Ref.String()]; ill && !touched && health.Compare(health.Verdict{State: was}, v) <= 0 {
			if left := baselineGrace - r.Now().Sub(w.phaseSince(object.Verification, r.Now())); v.State == health.Progressing && left > 0 {
				v.Again = left
				wait.add(o.Ref, v)
			}
			continue
		}
		if v.Fatal {
			return &failure{reason: v.Reason, phase: object.Verification, object: o.Ref.String(), message: describe(v)}
		}
		if v.State == health.Missing {
			if err := r.missing(ctx, w, object.Verification, o.Ref, o.Body.GroupVersionKind().Version, &wait, v); err != nil {
				return err
			}
			continue
		}
		wait.add(o.Ref, v)
	}
	if len(wait.what) > 0 {
		w.healthy = time.Time{}
		return &wait
	}
	now := r.Now()
	if w.healthy.IsZero() {
		w.healthy = now
	}
	if left := w.candidate.policy.Spec.Settle.Duration - now.Sub(w.healthy); left > 0 {
		return &pending{what: []string{fmt.Sprintf("settle: all healthy, for another %s", left.Round(time.Second))}, after: left}
	}
	return nil
}

// baselineGrace is how long the whole set is waited for where what is late was late before, and nobody touched it.
const baselineGrace = time.Minute

// check is phase 8: the checks of the policy run side by side; one that fails is tried again until its retry is over.
func (r *Reconciler) check(ctx context.Context, w *work) error {
	var (
		mu     sync.Mutex
		failed []string
		last   string
	)
	since := w.phaseSince(object.Validation, r.Now())
	err := each(ctx, w.candidate.policy.Spec.Checks, func(ctx context.Context, c v1alpha1.Check) error {
		mu.Lock()
		done := w.passed[c.Name]
		mu.Unlock()
		if done {
			return nil
		}
		err := ask(ctx, c)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			w.passed[c.Name] = true
			return nil
		}
		if r.Now().Sub(since) >= c.Retry.Duration {
			return &failure{reason: "CheckFailed", phase: object.Validation, object: "check/" + c.Name, message: err.Error()}
		}
		failed, last = append(failed, c.Name), err.Error()
		return nil
	})
	if err != nil {
		return err
	}
	if len(failed) > 0 {
		return &pending{what: []string{fmt.Sprintf("check/%s: %s", failed[0], last)}, after: time.Second}
	}
	return nil
}

// phaseSince is when the phase first waited, or now.
func (w *work) phaseSince(phase object.Phase, now time.Time) time.Time {
	if began, ok := w.waiting[phase]; ok {
		return began.since
	}
	return now
}

func ask(ctx context.Context, c v1alpha1.Check) error {
	if c.TCP != nil {
		return probe.TCP{Address: c.TCP.Address, Timeout: c.Timeout.Duration}.Probe(ctx)
	}
	p := probe.HTTP{URL: c.HTTP.URL, Contains: c.HTTP.Contains, Timeout: c.Timeout.Duration}
	for _, s := range c.HTTP.Status {
		p.Status = append(p.Status, int(s))
	}
	return p.Probe(ctx)
}
