package reconcile

import (
	"context"
	"errors"
	"fmt"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/object"
)

// deploy proves a commit and begins its release: S0 to S3 of the protocol. Any fault of the commit refuses it.
func (r *Reconciler) deploy(ctx context.Context, h journal.Head, step Step, q *v1alpha1.Request, tip string) (Result, error) {
	info := ReleaseInfo{Number: h.Number + 1, Commit: step.Commit, Kind: KindDeploy, Began: r.Now()}
	r.tell(Event{Kind: EventDetected, Release: &info, Message: step.Why})
	c, err := r.admit(ctx, h, step.Commit, q != nil && q.Commit != "")
	if c != nil {
		info = c.info
	}
	if err == nil && r.unchanged(ctx, h, c) {
		r.same = step.Commit
		if q != nil && (h.Pin != nil || h.Quarantined(step.Commit)) {
			h, err = r.swap(ctx, h, h.Lift(step.Commit, q.ID))
		}
		return Result{Head: h, Why: "the commit describes what is deployed already"}, err
	}
	if err != nil {
		return r.refuse(h, info, err)
	}
	if q != nil {
		c.request = q.ID
		if q.Commit != "" && q.Commit != tip { // else the branch would be followed as soon as it is done
			c.pin = &journal.Pin{Commit: q.Commit, By: q.By, At: r.Now()}
		}
	}
	return r.begin(ctx, h, c)
}

// refuse tells why a commit is not released; what is the world's fault stays an error, and the commit is tried again.
func (r *Reconciler) refuse(h journal.Head, info ReleaseInfo, err error) (Result, error) {
	var refused *RefusedError
	if !errors.As(err, &refused) {
		return Result{Head: h}, err
	}
	if r.refused == nil || len(r.refused) >= 64 { // a cache: what falls out is proved again
		r.refused = map[string]*Refusal{}
	}
	refusal := &Refusal{Commit: info.Commit, Reason: refused.Reason, Err: err, Findings: refused.Findings}
	r.refused[info.Commit] = refusal
	info.Outcome, info.Reason, info.Findings, info.Ended = v1alpha1.Refused, refused.Reason, refused.Findings, r.Now()
	info.Message = fmt.Sprintf("refused with %d findings, nothing was written: %s", len(refused.Findings), refused.Findings[0])
	r.tell(Event{Kind: EventEnded, Release: &info, Message: info.Message})
	return Result{Head: h, Refused: refusal, Why: "refused"}, nil
}

// unchanged reports that the commit declares what the last good one did.
func (r *Reconciler) unchanged(ctx context.Context, h journal.Head, c *candidate) bool {
	if h.Good == nil {
		return false
	}
	base, err := r.deployed(ctx, h)
	if err != nil || base.set.Digest != c.set.Digest {
		return false
	}
	old, err := r.loadBlob(ctx, h.Good.Policy)
	return err == nil && string(old) == string(c.policyBytes)
}

// begin plans the release, makes its bundles durable and opens it. What the plan finds wrong refuses it.
func (r *Reconciler) begin(ctx context.Context, h journal.Head, c *candidate) (Result, error) {
	h, err := r.found(ctx, h, c)
	if err != nil {
		return Result{}, fmt.Errorf("store the first head: %w", err)
	}
	c.info.Number = h.Number + 1
	plan, images, err := r.plan(ctx, h, c)
	if err != nil {
		return r.refuse(h, c.info, err)
	}
	base, err := r.deployed(ctx, h)
	if err != nil {
		return Result{Head: h}, err
	}
	// A head that was deleted while it rested is rebuilt as long as no plan of a later release is stored.
	if err := r.stillHead(ctx, h.Epoch); err != nil {
		r.forgetHead()
		return Result{}, err
	}
	w := newWork(c, plan, base, images)
	rel, union, err := r.store(ctx, h, w)
	if err != nil {
		return Result{Head: h}, err
	}
	rel.Request, rel.Source = c.request, c.source
	next := h.Prepare(rel, union, c.pin)
	if failpoint.Without(failpoint.HeadFirst) {
		w.stamp = stamp(r.Environment.UID, next.Epoch)
		if err := each(ctx, plan.in(object.Infrastructure), func(ctx context.Context, a Action) error { return r.apply(ctx, w, a) }); err != nil {
			return Result{Head: h}, err
		}
	}
	if h, err = r.swap(ctx, h, next); err != nil {
		return Result{}, fmt.Errorf("begin release %d: %w", rel.Number, err)
	}
	w.stamp = stamp(r.Environment.UID, h.Release.Epoch)
	r.work = w
	c.info.Changes = plan.Counts()
	r.tell(Event{Kind: EventBegan, Release: &c.info})
	return r.execute(ctx, h)
}
