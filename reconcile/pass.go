package reconcile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/object"
)

// Pass looks at the world once and does the one next thing. An error that Judge calls
// Again or Reread wants another pass soon; a *HaltedError wants a person.
func (r *Reconciler) Pass(ctx context.Context, ask Ask) (Result, error) {
	h, err := r.takeOver(ctx)
	if err != nil {
		return Result{}, r.halt(h, err)
	}
	before := ""
	if ask.Request != nil && (ask.Request.ID == r.handled || ask.Request.ID == h.Request) {
		before, ask.Request = ask.Request.ID, nil
	}
	tip, tipErr := r.tip(ctx, h, ask)
	res, err := r.act(ctx, h, ask, tip)
	if err != nil && Judge(err) == Person {
		err = r.halt(h, err)
	}
	res.Tip, res.TipErr = tip, tipErr
	if before != "" && before != r.handled { // by a process that could not tell any more
		r.handled, res.Request, res.Answer, res.Number = before, before, "taken up before a restart", h.Number
	}
	if refusal := r.refused[tip]; res.Refused == nil && refusal != nil {
		res.Refused = refusal
	}
	if err != nil {
		r.forgetHead()
	}
	return res, err
}

// tip reads the branch, where it matters. What is deployed is looked after whether or not it can be read.
func (r *Reconciler) tip(ctx context.Context, h journal.Head, ask Ask) (string, error) {
	if ask.Remove || h.State == journal.Committed || h.State == journal.Aborting {
		return "", nil
	}
	if ask.Request != nil { // a person waits for what the branch is now
		return r.Repository.Tip(ctx)
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	go r.hurry(asking, cancel, h.State != journal.Idle)
	tip, err := r.Repository.Tip(asking)
	if err != nil && asking.Err() != nil && ctx.Err() == nil {
		return "", nil // a pass that has nothing else to do will tell
	}
	return tip, err
}

// hurry ends a question to Git as soon as the pass has something else to do: a server that hangs must not keep it from that.
func (r *Reconciler) hurry(asking context.Context, cancel context.CancelFunc, busy bool) {
	if !busy {
		select {
		case <-asking.Done():
			return
		case <-r.wake():
		}
	}
	timer := time.NewTimer(tipPatience)
	defer timer.Stop()
	select {
	case <-asking.Done():
	case <-timer.C:
		cancel()
	}
}

// tipPatience is how long a pass waits for Git that has something else to do.
const tipPatience = time.Second

// takeOver reads the head. An open release that this process did not begin is taken over
// by a new epoch, so that a process that still believes it is at work cannot decide anything.
func (r *Reconciler) takeOver(ctx context.Context) (journal.Head, error) {
	h, err := r.read(ctx)
	if err != nil {
		return h, err
	}
	if h.State == journal.Idle || (r.work != nil && r.work.candidate.info.Number == h.Release.Number && h.Epoch == r.epoch) {
		return h, nil
	}
	r.work = nil // somebody else wrote the head: what this process has applied may not be there any more
	h, err = r.swap(ctx, h, h.TakeOver())
	if err != nil {
		return h, fmt.Errorf("take over release %d: %w", h.Number, err)
	}
	w, err := r.load(ctx, h)
	if err != nil {
		return h, err
	}
	r.tell(Event{Kind: EventBegan, Release: &w.candidate.info, Message: "taken over after a restart"})
	return h, nil
}

// act does what Next decides.
func (r *Reconciler) act(ctx context.Context, h journal.Head, ask Ask, tip string) (Result, error) {
	sight := Sight{
		Tip: tip, Source: r.source(), Request: ask.Request, Suspended: ask.Suspended, Remove: ask.Remove,
		Ill: r.ill(h) != nil, Seen: tip != "" && (r.same == tip || r.refused[tip] != nil), Now: r.Now(),
	}
	step := Next(h, sight)
	var res Result
	var err error
	switch step.Verb {
	case Finish:
		res, err = r.finish(ctx, h)
	case Undo:
		res, err = r.undo(ctx, h)
	case Resume:
		res, err = r.resume(ctx, h, ask, tip)
	case Deploy:
		delete(r.refused, step.Commit)
		res, err = r.deploy(ctx, h, step, ask.Request, tip)
		if err != nil && Judge(err) != Stop && Judge(err) != Reread && r.head != nil && r.head.State == journal.Idle {
			// A commit that cannot be proved now does not keep what is deployed from being looked after.
			if looked, lerr := r.repair(ctx, *r.head, ask.Suspended); lerr == nil {
				res.Drifted, res.Ill = looked.Drifted, looked.Ill
			}
		}
	case Rollback:
		res, err = r.rollback(ctx, h, ask.Request)
	case Retry:
		if h, err = r.retry(ctx, h, ask.Request); err == nil {
			res, err = r.act(ctx, h, Ask{Suspended: ask.Suspended}, tip)
		}
	case Return:
		res, err = r.goBack(ctx, h)
	case Remove:
		res, err = r.remove(ctx, h)
	case Removed:
		res = Result{Head: h, Removed: true}
	default:
		res, err = r.repair(ctx, h, ask.Suspended)
	}
	if res.Why == "" {
		res.Why = step.Why
	}
	r.answer(&res, ask.Request, step, err)
	return res, err
}

// answer tells a person what became of their request, once it was carried out.
func (r *Reconciler) answer(res *Result, q *v1alpha1.Request, step Step, err error) {
	if q == nil || err != nil && Judge(err) != Fail {
		return
	}
	switch step.Verb {
	case Deploy, Rollback, Retry:
	default:
		return
	}
	r.handled = q.ID
	res.Request, res.Answer = q.ID, res.Why
	if err != nil {
		res.Answer = err.Error()
	}
}

// source names what is rendered, so that a changed Environment is noticed at an unchanged tip.
func (r *Reconciler) source() string {
	s := r.Environment.Spec
	sum := sha256.Sum256([]byte(s.Source.URL + "\x00" + s.Source.Branch + "\x00" + s.Path))
	return hex.EncodeToString(sum[:8])
}

// resume goes on with an open release, unless a newer admitted commit takes its place while it waits.
func (r *Reconciler) resume(ctx context.Context, h journal.Head, ask Ask, tip string) (Result, error) {
	w, err := r.load(ctx, h)
	if err != nil {
		return Result{Head: h}, r.halt(h, err)
	}
	if ask.Remove {
		return r.abort(ctx, h, w, &failure{reason: reasonSuperseded, phase: h.Release.Phase, message: "the environment is being deleted"})
	}
	if q := ask.Request; q != nil && (q.Verb == v1alpha1.VerbRollback || q.Verb == v1alpha1.VerbApply && q.Commit != "" && q.Commit != h.Release.Commit) {
		return r.abort(ctx, h, w, &failure{reason: reasonSuperseded, phase: h.Release.Phase, message: fmt.Sprintf("%s was asked for by %s", q.Verb, q.By)})
	}
	newer := tip != "" && tip != h.Release.Commit && !h.Quarantined(tip) && r.refused[tip] == nil &&
		h.Release.Kind == KindDeploy && h.Release.Request == "" && !ask.Suspended && (h.Good == nil || tip != h.Good.Commit)
	if !newer || h.Release.Phase == object.Migrations {
		return r.execute(ctx, h)
	}
	c, err := r.admit(ctx, h, tip, false)
	if err != nil {
		var refused *RefusedError
		if errors.As(err, &refused) {
			if _, err := r.refuse(h, c.infoOr(tip, h), err); err != nil {
				return Result{Head: h}, err
			}
		}
		return r.execute(ctx, h)
	}
	return r.abort(ctx, h, w, &failure{reason: reasonSuperseded, phase: h.Release.Phase, object: short(tip), message: "a newer commit takes its place"})
}

func (c *candidate) infoOr(commit string, h journal.Head) ReleaseInfo {
	if c != nil {
		return c.info
	}
	return ReleaseInfo{Number: h.Number + 1, Commit: commit, Kind: KindDeploy}
}

// rollback releases an older set and pins it: the previous one from its bundle, any other rendered again from the mirror.
func (r *Reconciler) rollback(ctx context.Context, h journal.Head, q *v1alpha1.Request) (Result, error) {
	commit := q.Commit
	if commit == "" && h.Previous != nil {
		commit = h.Previous.Commit
	}
	var c *candidate
	var err error
	kept := h.Previous != nil && commit == h.Previous.Commit
	if kept {
		c, err = r.fromMark(ctx, h, h.Previous, KindRollback)
	}
	switch {
	case commit == "":
		err = &RefusedError{Reason: "NothingToRollBackTo", Findings: []string{"there is no previous release; name a commit or a release"}}
	case !kept, Judge(err) == Person: // its bundle is gone, which puts nothing in doubt that is deployed
		if c, err = r.admit(ctx, h, commit, true); c != nil {
			c.info.Kind = KindRollback
		}
	}
	if err != nil {
		info := c.infoOr(commit, h)
		info.Kind = KindRollback
		return r.refuse(h, info, err)
	}
	c.info.By, c.request = q.By, q.ID
	c.pin = &journal.Pin{Commit: c.info.Commit, By: q.By, At: r.Now()}
	return r.begin(ctx, h, c)
}

// retry forgets what failed here and what is pinned, so that the branch is followed again.
func (r *Reconciler) retry(ctx context.Context, h journal.Head, q *v1alpha1.Request) (journal.Head, error) {
	r.refused, r.same = nil, ""
	return r.swap(ctx, h, h.Lift("", q.ID))
}

// goBack releases the previous commit after the last good one fell ill while it baked (S15).
func (r *Reconciler) goBack(ctx context.Context, h journal.Head) (Result, error) {
	c, err := r.fromMark(ctx, h, h.Previous, KindReturn)
	if err != nil {
		return Result{Head: h}, r.halt(h, err)
	}
	v := *r.ill(h)
	why := journal.Failure{Reason: v.Reason, Phase: object.Verification, Object: v.Ref.String(), Message: "fell ill while baking: " + describe(v)}
	c.info.Message = why.Message
	if h, err = r.swap(ctx, h, h.Quarantine(h.Good.Commit, h.Good.Release, why, r.Now())); err != nil {
		return Result{}, fmt.Errorf("quarantine %s: %w", short(h.Good.Commit), err)
	}
	return r.begin(ctx, h, c)
}

// remove releases the empty set: the environment is deleted with prune: onDelete.
func (r *Reconciler) remove(ctx context.Context, h journal.Head) (Result, error) {
	empty, err := object.NewSet(nil)
	if err != nil {
		return Result{Head: h}, err
	}
	c := &candidate{info: ReleaseInfo{Number: h.Number + 1, Kind: KindRemove, Began: r.Now()}, set: empty}
	if err := c.adopt("release.yaml", r.Now); err != nil {
		return Result{Head: h}, err
	}
	c.policy.Spec.Settle.Duration, c.policy.Spec.Bake.Duration = 0, 0 // nothing is left that could be healthy
	return r.begin(ctx, h, c)
}

// Plan computes what a release of a commit would do now. It only reads.
// What stands against it is a *RefusedError.
func (r *Reconciler) Plan(ctx context.Context, commit string) (*Plan, error) {
	h, err := r.Journal.Head(ctx)
	if err != nil {
		return nil, err
	}
	named := commit != ""
	if !named {
		if commit, err = r.Repository.Tip(ctx); err != nil {
			return nil, err
		}
	}
	c, err := r.admit(ctx, h, commit, named)
	if err != nil {
		return nil, err
	}
	plan, _, err := r.plan(ctx, h, c)
	return plan, err
}
