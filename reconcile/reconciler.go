// Package reconcile brings an environment to what one commit describes, or back to what was there before.
package reconcile

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/gitsource"
	"github.com/nexus-platform/reconciler/health"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/render"
)

// Repository is the config repository as one environment sees it.
type Repository interface {
	// Tip reads what the branch points at.
	Tip(ctx context.Context) (string, error)
	// Commit makes a commit available and proves what the Environment demands of it. good is the last good commit, or empty.
	Commit(ctx context.Context, hash, good string) (gitsource.Commit, error)
	// Render turns the commit's tree into a set.
	Render(ctx context.Context, hash string) (*render.Result, error)
}

// Reconciler brings one environment to what its branch describes. Its fields are set
// before the first Pass; Pass is never called twice at a time.
type Reconciler struct {
	Environment *v1alpha1.Environment
	Repository  Repository
	Journal     *journal.Journal
	Cluster     *kube.Cluster
	System      string      // namespace of the reconciler itself: out of every commit's reach
	Observe     func(Event) // told what happens; nil for nobody
	Log         *slog.Logger
	Now         func() time.Time

	mu    sync.Mutex
	dirty map[object.Ref]bool // changed in the cluster since the last look
	woken chan struct{}       // for who waits for a change; nil: nobody does

	epoch   int64         // of the newest head that this process wrote
	newest  int64         // release that this process knows of
	head    *journal.Head // as last read or written; nil: read it again
	good    *world        // what the head's Good describes; nil: load it
	work    *work         // of the open release; nil: load it
	refused map[string]*Refusal
	same    string // a tip that describes what is deployed already
	handled string // id of the last request that was carried out
	flaps   map[object.Ref]*flap
	unwell  map[object.Ref]health.Verdict // what has failed for good, as far as this process looked
	drifted map[object.Ref]v1alpha1.Drift
	looked  bool // this process has looked at everything once
}

// world is what the last good release declared.
type world struct {
	of        string // identity
	set       *object.Set
	policy    *v1alpha1.ReleasePolicy
	judge     *health.Judge
	inventory map[object.Ref]object.Record
	ignored   func(object.Ref) []string
}

// Refusal is a commit that was refused before the first write.
type Refusal struct {
	Commit   string
	Reason   string // CamelCase
	Err      error
	Findings []string
}

// Result says when the environment wants to be looked at again, and what it waits for.
type Result struct {
	After   time.Duration // 0: not by the clock
	Waiting []string
	Head    journal.Head
	Tip     string
	TipErr  error            // the branch could not be read; what is deployed is looked after all the same
	Refused *Refusal         // the tip was refused
	Drifted []v1alpha1.Drift // what differs now
	Ill     string           // what is unhealthy since the decision
	Request string           // id of the request that was carried out
	Answer  string           // what became of it
	Number  int64            // of the release that it became, where that began in another process
	Removed bool             // everything of an environment that is being deleted is gone
	Why     string           // what the pass decided, for people
}

// Ask is what the Environment resource asks of a pass.
type Ask struct {
	Request   *v1alpha1.Request
	Suspended bool
	Remove    bool
}

// Changed marks an object that changed in the cluster. It is the kube.Cluster's callback.
func (r *Reconciler) Changed(ref object.Ref) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dirty == nil {
		r.dirty = map[object.Ref]bool{}
	}
	r.dirty[ref] = true
	if r.woken != nil {
		close(r.woken)
		r.woken = nil
	}
}

// wake is closed as soon as something is marked as changed.
func (r *Reconciler) wake() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.dirty) > 0 {
		now := make(chan struct{})
		close(now)
		return now
	}
	if r.woken == nil {
		r.woken = make(chan struct{})
	}
	return r.woken
}

// takeDirty empties the list of changed objects and returns it.
func (r *Reconciler) takeDirty() map[object.Ref]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.dirty
	r.dirty = nil
	return taken
}

// markDirty puts back what could not be looked at.
func (r *Reconciler) markDirty(refs map[object.Ref]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dirty == nil {
		r.dirty = map[object.Ref]bool{}
	}
	maps.Copy(r.dirty, refs)
}

// swap writes the head by compare-and-swap and remembers it. After an error the head
// is read again before anything is decided (protocol rule 3).
func (r *Reconciler) swap(ctx context.Context, from, to journal.Head) (journal.Head, error) {
	written, err := r.Journal.Swap(ctx, from, to)
	if err != nil {
		r.forgetHead()
		return journal.Head{}, err
	}
	r.head, r.epoch, r.newest = &written, written.Epoch, max(r.newest, written.Number)
	return written, nil
}

// forgetHead makes the next look at the head a look at the journal.
func (r *Reconciler) forgetHead() {
	if !failpoint.Without(failpoint.Reread) {
		r.head = nil
	}
}

// read returns the head, from memory where it rests and nothing but this process may write it.
func (r *Reconciler) read(ctx context.Context) (journal.Head, error) {
	if r.head != nil && r.head.State == journal.Idle {
		return *r.head, nil
	}
	h, err := r.Journal.Head(ctx)
	if err != nil {
		if Judge(err) == Person {
			r.forget()
		}
		return journal.Head{}, err
	}
	if !h.Exists() && r.epoch > 0 {
		r.forget()
	}
	if h.Missing() {
		if h, err = r.Journal.Rebuild(ctx, h); err != nil {
			return journal.Head{}, err
		}
		r.forget()
		r.tell(Event{Kind: EventRebuilt, Message: "the head of the journal was missing: it was rebuilt from its spare, and nothing is lost"})
	}
	r.head, r.newest = &h, max(r.newest, h.Number)
	return h, nil
}
