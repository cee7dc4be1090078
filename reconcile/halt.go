package reconcile

import (
	"errors"
	"fmt"
	"time"

	"github.com/nexus-platform/reconciler/journal"
)

// HaltedError says that only a person can go on, and what they can do.
type HaltedError struct {
	What string // what happened
	Do   string // what to do
	Err  error
}

func (e *HaltedError) Error() string { return e.What + "; " + e.Do }

func (e *HaltedError) Unwrap() error { return e.Err }

// undoLater waits or gives a person what the undo needs. The release stays open: undo goes on when the fault is mended.
func (r *Reconciler) undoLater(h journal.Head, err error) (Result, error) {
	var wait *pending
	if errors.As(err, &wait) {
		if patience := r.work.candidate.policy.Spec.Patience.Duration; r.work.undoing.stood(r.Now()) > patience {
			return Result{Head: h}, r.halt(h, fmt.Errorf("%s, for longer than %s", wait.what[0], patience))
		}
		return Result{Head: h, Waiting: wait.what, After: max(wait.after, 100*time.Millisecond), Why: "undoing"}, nil
	}
	return Result{Head: h}, r.halt(h, err)
}

// halt turns what no retry will mend into a HaltedError.
func (r *Reconciler) halt(h journal.Head, err error) error {
	switch Judge(err) {
	case Again, Reread, Stop:
		return err
	}
	var halted *HaltedError
	if errors.As(err, &halted) {
		return err
	}
	what := fmt.Sprintf("the releases of %s stand still: %v", r.Environment.Name, err)
	if h.State != journal.Idle && h.State != "" {
		what = fmt.Sprintf("release %d of %s stands still while it is %s: %v", h.Number, r.Environment.Name, h.State, err)
	}
	return &HaltedError{What: what, Do: r.remedy(err), Err: err}
}

// remedy says what is safe, and by which command a person goes on.
func (r *Reconciler) remedy(err error) string {
	var newer *journal.NewerError
	switch {
	case errors.As(err, &newer):
		return fmt.Sprintf("nothing is written meanwhile: run the newer program again, by `kubectl --namespace %s rollout undo deployment/nexus-reconciler` if it was replaced just now", r.System)
	case Judge(err) == Person:
		where := ""
		if r.Environment.Spec.Cluster != nil {
			where = " in the cluster that spec.cluster names"
		}
		return fmt.Sprintf("nothing is written meanwhile, and what is deployed stays as it is: restore the Secret from a backup of the cluster, or begin anew: make sure that the tip of the branch is good, "+
			"because what failed here before is forgotten too, then run `kubectl --namespace %s delete secrets --selector %s`%s: "+
			"the tip is then released over what is there, and what it does not declare is pruned within the guards of its policy", r.Journal.Namespace, r.Journal.Selector(), where)
	}
	return fmt.Sprintf("nothing is half-written: mend what the message names (rights, a webhook, a namespace that does not go), and it goes on by itself within a minute; "+
		"`reconciler explain %s --namespace %s` shows how far it is", r.Environment.Name, r.Environment.Namespace)
}
