package reconcile

import (
	"context"
	"errors"

	"github.com/nexus-platform/reconciler/gitsource"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/render"
)

// Verdict says what must follow an error.
type Verdict int

// The verdicts.
const (
	Again  Verdict = iota // the world's fault: the same step again later, within patience
	Reread                // somebody else moved first: read the head and the world again
	Fail                  // the commit's fault: undo, or halt where nothing can be undone
	Stop                  // this process is stopping: leave everything as it is
	Person                // the journal itself is in doubt: only a person can decide
)

// errMoved says that an object which is planned with was changed or deleted meanwhile. That speaks against no commit: the next
// pass plans with what is there then.
var errMoved = errors.New("the cluster changed while the release was planned")

// Judge is the only place that asks what an error means for a release.
func Judge(err error) Verdict {
	var (
		unavailable *kube.UnavailableError
		throttled   *kube.ThrottledError
		lostAnswer  *kube.LostAnswerError
		unknown     *journal.UnknownOutcomeError
		away        *journal.UnavailableError
		remote      *gitsource.UnreachableError
		newer       *journal.NewerError
		lost        *journal.LostHeadError
		corrupt     *journal.CorruptError
		missing     *journal.MissingChunkError
		disk        *gitsource.DiskError
		mirror      *gitsource.CorruptError
		denied      *gitsource.AuthError
		sandbox     *render.SandboxError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return Stop
	case errors.As(err, &newer), errors.As(err, &lost), errors.As(err, &corrupt), errors.As(err, &missing):
		return Person
	case errors.Is(err, journal.ErrConflict), errors.Is(err, errMoved), errors.As(err, &unknown):
		return Reread
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &unavailable), errors.As(err, &throttled), errors.As(err, &lostAnswer),
		errors.As(err, &away), errors.As(err, &remote), errors.As(err, &disk), errors.As(err, &mirror), errors.As(err, &denied), errors.As(err, &sandbox):
		return Again
	}
	return Fail
}
