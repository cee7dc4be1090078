package journal

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
)

// opened stores the plan of the next release and opens it.
func opened(t *testing.T, j *Journal, h Head) Head {
	t.Helper()
	n := h.Number + 1
	plan := store(t, j, PlanBundle([]byte("{}"), n))
	return swapped(t, j, h, h.Prepare(Release{Number: n, Commit: "c", Plan: plan, Set: plan}, "", nil))
}

// markOf is the open release as the last good one, with a set that is there.
func markOf(t *testing.T, j *Journal, h Head, commit string) Mark {
	t.Helper()
	return Mark{Release: h.Number, Commit: commit, Set: store(t, j, BlobBundle("set", []byte("{}")))}
}

func swapped(t *testing.T, j *Journal, from, to Head) Head {
	t.Helper()
	h, err := j.Swap(t.Context(), from, to)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// loseHead deletes the head as a person would.
func loseHead(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Secrets.Delete(t.Context(), j.headName(), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// ways are how a head comes to be lost, and whether it may be rebuilt then.
var ways = []struct {
	name    string
	leave   func(t *testing.T, j *Journal, h Head) Head // the head as it is lost
	rebuilt bool
}{
	{"at rest", func(t *testing.T, j *Journal, h Head) Head { return h }, true},
	{"after a plan was stored", func(t *testing.T, j *Journal, h Head) Head {
		store(t, j, PlanBundle([]byte("{}"), h.Number+1))
		return h
	}, false},
	{"in a release", opened, false},
	{"in a decided release", func(t *testing.T, j *Journal, h Head) Head {
		h = opened(t, j, h)
		return swapped(t, j, h, h.Commit())
	}, false},
	{"while a release is undone", func(t *testing.T, j *Journal, h Head) Head {
		h = opened(t, j, h)
		return swapped(t, j, h, h.Abort(Failure{Reason: "Unhealthy"}))
	}, false},
	{"after a release", func(t *testing.T, j *Journal, h Head) Head {
		h = opened(t, j, h)
		h = swapped(t, j, h, h.Commit())
		return swapped(t, j, h, h.Done(markOf(t, j, h, "c"), "", "", noon, noon))
	}, true},
	{"after a release that was undone", func(t *testing.T, j *Journal, h Head) Head {
		h = opened(t, j, h)
		h = swapped(t, j, h, h.Abort(Failure{Reason: "Unhealthy"}))
		return swapped(t, j, h, h.Undone(Outcome{Outcome: "Reverted"}, "", true))
	}, true},
}

func TestALostHeadIsRebuiltOnlyIfNoReleaseWasOpenedSinceItsSpare(t *testing.T) {
	for _, tc := range ways {
		t.Run(tc.name, func(t *testing.T) {
			j, h := begun(t, clustertest.Namespace(t))
			if err := j.Rest(t.Context(), h); err != nil {
				t.Fatal(err)
			}
			h = tc.leave(t, j, h)
			loseHead(t, j)
			fresh, _ := open(t, strings.TrimPrefix(string(j.Environment), "env-")) // a process that knows nothing
			got, err := fresh.Head(t.Context())
			var lost *LostHeadError
			switch {
			case !tc.rebuilt:
				if !errors.As(err, &lost) || lost.Secret != j.headName() || lost.Release != max(h.Number, 1) {
					t.Errorf("%+v, %v", got, err)
				}
				// Whoever deletes the journal now, one Secret after the other, does not make this process believe an older head.
				if err := fresh.Secrets.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: releaseLabel}); err != nil {
					t.Fatal(err)
				}
				if got, err := fresh.Head(t.Context()); !errors.As(err, &lost) {
					t.Errorf("while the journal is being deleted: %+v, %v", got, err)
				}
				return
			case err != nil:
				t.Fatal(err)
			case !got.Missing() || got.Exists() || got.Epoch != h.Epoch:
				t.Errorf("%+v", got)
			}
			if again, err := fresh.Head(t.Context()); err != nil || !again.Missing() {
				t.Errorf("a look wrote the head: %+v, %v", again, err)
			}
			if got, err = fresh.Rebuild(t.Context(), got); err != nil || !got.Exists() || got.Missing() {
				t.Fatalf("rebuild: %+v, %v", got, err)
			}
			h.Epoch++
			if diff := cmp.Diff(h, got, cmpopts.IgnoreUnexported(Head{}), cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
			if again, err := fresh.Head(t.Context()); err != nil || again.Missing() || again.Epoch != got.Epoch {
				t.Errorf("the next look: %+v, %v", again, err)
			}
			if _, err := j.Swap(t.Context(), h, h.Lift("", "")); !errors.Is(err, ErrConflict) {
				t.Errorf("a process that knows the lost head: %v", err)
			}
		})
	}
}

func TestAHeadWithoutASpareStaysLostUntilItsBundlesGoToo(t *testing.T) {
	namespace := clustertest.Namespace(t)
	j, h := begun(t, namespace)
	bundle := BlobBundle("policy", []byte("{}"))
	store(t, j, bundle)
	loseHead(t, j)
	if _, err := j.Swap(t.Context(), h, h.Lift("", "")); !errors.Is(err, ErrConflict) {
		t.Errorf("a write to a head that is gone: %v", err)
	}
	var lost *LostHeadError
	if _, err := j.Head(t.Context()); !errors.As(err, &lost) {
		t.Fatal(err)
	}
	other, _ := open(t, namespace)
	other.Environment = "another"
	if h, err := other.Head(t.Context()); err != nil || h.Exists() {
		t.Errorf("an environment that lost nothing: %+v, %v", h, err)
	}
	// As people are told: by its selector, all of it goes, and the same process begins anew.
	if err := j.Secrets.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: j.Selector()}); err != nil {
		t.Fatal(err)
	}
	if h, err := j.Head(t.Context()); err != nil || h.Exists() || h.State != Idle {
		t.Errorf("after its bundles were deleted: %+v, %v", h, err)
	}
	if _, err := j.Load(t.Context(), store(t, j, bundle)); err != nil {
		t.Errorf("what was deleted is believed to be there: %v", err)
	}
}

func TestAHeadIsNotRebuiltWhereWhatItNamesIsGone(t *testing.T) {
	j, h := begun(t, clustertest.Namespace(t))
	h = opened(t, j, h)
	h = swapped(t, j, h, h.Commit())
	h = swapped(t, j, h, h.Done(markOf(t, j, h, "c"), "", "", noon, noon))
	if err := j.Secrets.Delete(t.Context(), j.secretName(h.Good.Set), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	loseHead(t, j)
	var lost *LostHeadError
	if got, err := j.Head(t.Context()); !errors.As(err, &lost) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTheSpareIsWrittenOnceForEachRest(t *testing.T) {
	j, w := open(t, clustertest.Namespace(t))
	h, err := j.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h = swapped(t, j, h, h.First(7, time.Unix(1e9, 0)))
	rest := func(what string, writes int) {
		t.Helper()
		w.take()
		if err := j.Rest(t.Context(), h); err != nil {
			t.Fatal(err)
		}
		if _, wrote, _ := w.take(); wrote != writes {
			t.Errorf("%s: %d writes, not %d", what, wrote, writes)
		}
	}
	rest("the first time", 1)
	rest("again", 0)
	h = opened(t, j, h)
	rest("with a release open", 0)
	h = swapped(t, j, h, h.Commit())
	h = swapped(t, j, h, h.Done(markOf(t, j, h, "c"), "", "", noon, noon))
	rest("what the end of the release wrote already", 0)
	h = swapped(t, j, h, h.Lift("", "x"))
	rest("after a write between two releases", 1)
	j.spare = copied{} // as a process that has just started
	rest("after a restart", 0)
}

func TestASpareOfSomebodyWhoWasAwayIsRefused(t *testing.T) {
	namespace := clustertest.Namespace(t)
	j, h := begun(t, namespace)
	h = opened(t, j, h)
	h = swapped(t, j, h, h.Commit())
	away, _ := open(t, namespace)
	theirs, err := away.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := open(t, namespace)                                                                                           // who knows no spare
	if err := away.copy(t.Context(), Head{Environment: away.Environment, State: Idle, Epoch: 1}, theirs.revision); err != nil { // they know its revision
		t.Fatal(err)
	}
	h = swapped(t, j, h, h.Done(markOf(t, j, h, "c"), "", "", noon, noon))
	if _, err := away.Swap(t.Context(), theirs, theirs.Done(markOf(t, j, h, "stale"), "", "", noon, noon)); !errors.Is(err, ErrConflict) {
		t.Errorf("the write of somebody who was away: %v", err)
	}
	if err := stranger.Rest(t.Context(), Head{Environment: away.Environment, State: Idle, revision: theirs.revision}); !errors.Is(err, ErrConflict) {
		t.Errorf("the rest of somebody who was away: %v", err)
	}
	loseHead(t, j)
	if h, err = j.Head(t.Context()); err != nil || h.Good.Commit != "c" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestASpareWhoseAnswerWasLostIsReadAgain(t *testing.T) {
	j, w := open(t, clustertest.Namespace(t))
	h, err := j.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h = swapped(t, j, h, h.First(0, time.Time{}))
	w.losing(func(r *http.Request) bool { return r.Method != http.MethodGet })
	var away *UnavailableError
	if err := j.Rest(t.Context(), h); !errors.As(err, &away) {
		t.Errorf("%v", err)
	}
	w.losing(nil)
	w.take()
	if err := j.Rest(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if reads, writes, _ := w.take(); reads != 1 || writes != 0 {
		t.Errorf("%d reads, %d writes: it was there", reads, writes)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	j.spare = copied{}
	if err := j.Rest(ctx, h); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
