package reconcile

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/gitsource"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/render"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func TestNextStepOfEveryState(t *testing.T) {
	open := &journal.Release{Number: 2, Commit: "open"}
	good, previous := &journal.Mark{Release: 1, Commit: "good", Source: "src"}, &journal.Mark{Commit: "previous"}
	idle := journal.Head{State: journal.Idle, Good: good, Previous: previous, BakeUntil: noon.Add(time.Minute)}
	with := func(change func(*journal.Head)) journal.Head {
		h := idle
		change(&h)
		return h
	}
	bad := with(func(h *journal.Head) { h.Bad = []journal.Bad{{Commit: "tip"}} })
	pinned := with(func(h *journal.Head) { h.Pin = &journal.Pin{Commit: "good"} })
	request := func(verb, commit string) *v1alpha1.Request {
		return &v1alpha1.Request{ID: "r", Verb: verb, Commit: commit, By: "ada"}
	}
	for name, tt := range map[string]struct {
		head  journal.Head
		sight Sight
		want  Verb
		on    string
	}{
		"a decided release goes forward whatever is asked for":     {journal.Head{State: journal.Committed, Release: open}, Sight{Tip: "tip", Remove: true, Suspended: true, Request: request(v1alpha1.VerbRollback, "")}, Finish, "open"},
		"a release that is undone goes on being undone":            {journal.Head{State: journal.Aborting, Release: open}, Sight{Tip: "tip", Suspended: true}, Undo, "open"},
		"an open release is resumed, also while suspended":         {journal.Head{State: journal.Prepared, Release: open}, Sight{Tip: "tip", Suspended: true}, Resume, "open"},
		"a new tip is released":                                    {idle, Sight{Tip: "tip", Source: "src"}, Deploy, "tip"},
		"the first tip is released":                                {journal.Head{State: journal.Idle}, Sight{Tip: "tip"}, Deploy, "tip"},
		"the tip that is deployed is left":                         {idle, Sight{Tip: "good", Source: "src"}, Rest, "good"},
		"the same tip of another path is released":                 {idle, Sight{Tip: "good", Source: "other"}, Deploy, "good"},
		"a tip that failed here is not tried again":                {bad, Sight{Tip: "tip", Source: "src"}, Rest, "tip"},
		"a person may try it again":                                {bad, Sight{Tip: "tip", Request: request(v1alpha1.VerbApply, "")}, Deploy, "tip"},
		"a person may name a commit":                               {pinned, Sight{Tip: "tip", Request: request(v1alpha1.VerbApply, "named")}, Deploy, "named"},
		"an apply of a branch that cannot be read waits":           {idle, Sight{Request: request(v1alpha1.VerbApply, "")}, Rest, ""},
		"a person may lift the quarantine":                         {bad, Sight{Tip: "tip", Request: request(v1alpha1.VerbRetry, "")}, Retry, ""},
		"a person may go back":                                     {idle, Sight{Tip: "good", Request: request(v1alpha1.VerbRollback, "old")}, Rollback, "old"},
		"a tip that was refused is not proved again":               {idle, Sight{Tip: "tip", Source: "src", Seen: true}, Rest, "tip"},
		"a branch that cannot be read changes nothing":             {idle, Sight{}, Rest, ""},
		"pinned, the branch is not followed":                       {pinned, Sight{Tip: "tip"}, Rest, "tip"},
		"suspended, nothing begins":                                {idle, Sight{Tip: "tip", Suspended: true, Request: request(v1alpha1.VerbApply, "")}, Rest, ""},
		"what falls ill while it bakes goes back":                  {idle, Sight{Tip: "good", Ill: true, Now: noon}, Return, "previous"},
		"what falls ill later is told":                             {idle, Sight{Tip: "good", Source: "src", Ill: true, Now: noon.Add(time.Hour)}, Rest, "good"},
		"what a person rolled back to does not go back by itself":  {pinned, Sight{Tip: "tip", Ill: true, Now: noon}, Rest, "tip"},
		"a first release has nothing to go back to":                {with(func(h *journal.Head) { h.Previous = nil }), Sight{Tip: "good", Source: "src", Ill: true, Now: noon}, Rest, "good"},
		"an environment that is deleted takes its objects away":    {idle, Sight{Remove: true, Suspended: true}, Remove, ""},
		"what was kept of a first release is taken away too":       {journal.Head{State: journal.Idle, Inventory: "i"}, Sight{Remove: true}, Remove, ""},
		"an environment that has nothing is gone at once":          {journal.Head{State: journal.Idle}, Sight{Remove: true}, Removed, ""},
		"an environment whose objects are gone is gone":            {journal.Head{State: journal.Idle, Good: &journal.Mark{Release: 3}, Inventory: "i"}, Sight{Remove: true}, Removed, ""},
		"an environment that is deleted finishes its open release": {journal.Head{State: journal.Prepared, Release: open}, Sight{Remove: true}, Resume, "open"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Next(tt.head, tt.sight); got.Verb != tt.want || got.Commit != tt.on || got.Why == "" {
				t.Errorf("the step is %+v, want %s of %q", got, tt.want, tt.on)
			}
		})
	}
}

func TestEveryErrorHasAVerdict(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want Verdict
	}{
		"an object moved while it was planned": {fmt.Errorf("%w: ConfigMap/shop/web is gone", errMoved), Reread},
		"the API server is away":               {&kube.UnavailableError{Cause: errors.New("connection refused")}, Again},
		"the API server is busy":               {&kube.ThrottledError{}, Again},
		"an answer was lost":                   {&kube.LostAnswerError{Cause: errors.New("EOF")}, Again},
		"a deadline passed":                    {context.DeadlineExceeded, Again},
		"the Git server is away":               {&gitsource.UnreachableError{}, Again},
		"the credentials are refused":          {&gitsource.AuthError{}, Again},
		"the disk is full":                     {&gitsource.DiskError{}, Again},
		"the sandbox cannot be set up":         {&render.SandboxError{Reason: "seccomp"}, Again},
		"the head was moved":                   {journal.ErrConflict, Reread},
		"a head write may have arrived":        {&journal.UnknownOutcomeError{}, Reread},
		"the process ends":                     {context.Canceled, Stop},
		"a newer program wrote the head":       {&journal.NewerError{}, Person},
		"the head is lost":                     {&journal.LostHeadError{}, Person},
		"a bundle is corrupt":                  {&journal.CorruptError{}, Person},
		"a bundle is missing":                  {&journal.MissingChunkError{}, Person},
		"the object is refused":                {&kube.InvalidError{}, Fail},
		"the identity may not":                 {&kube.ForbiddenError{}, Fail},
		"somebody else owns a field":           {&kube.ConflictError{}, Fail},
		"a render that crashes is the commit":  {&render.CrashError{}, Fail},
		"anything else":                        {errors.New("something"), Fail},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Judge(fmt.Errorf("release 3: %w", tt.err)); got != tt.want {
				t.Errorf("the verdict is %d, want %d", got, tt.want)
			}
		})
	}
}
