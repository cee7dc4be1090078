package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/health"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/validate"
)

// candidate is what a release would make true: a commit, rendered and checked, or an older bundle.
type candidate struct {
	info        ReleaseInfo
	set         *object.Set
	policy      *v1alpha1.ReleasePolicy
	policyBytes []byte
	judge       *health.Judge
	warnings    []string
	source      string       // what it was rendered from
	request     string       // of a person, that it carries out
	pin         *journal.Pin // that comes with it
}

// RefusedError says why a commit is not released; nothing was written.
type RefusedError struct {
	Reason   string   // CamelCase
	Findings []string // each with file and object; at least one
	Cause    error
}

func (e *RefusedError) Error() string { return e.Reason + ": " + strings.Join(e.Findings, "; ") }

func (e *RefusedError) Unwrap() error { return e.Cause }

func refuse(reason string, err error) *RefusedError {
	return &RefusedError{Reason: reason, Findings: []string{err.Error()}, Cause: err}
}

// refuseUnlessWorld turns the commit's own faults into a refusal; what the world did wrong stays what it is.
func refuseUnlessWorld(reason string, err error) error {
	if err == nil || Judge(err) != Fail {
		return err
	}
	return refuse(reason, err)
}

// admit proves a commit without asking the API server to judge its objects: S0 of the
// protocol. named says that a person chose the commit, which may then be older than the last good one.
func (r *Reconciler) admit(ctx context.Context, h journal.Head, hash string, named bool) (*candidate, error) {
	good := ""
	if h.Good != nil && !named {
		good = h.Good.Commit
	}
	commit, err := r.Repository.Commit(ctx, hash, good)
	if named && err != nil && Judge(err) == Again {
		// A commit that there is not looks like a server that is away. A person waits for the answer
		// and can ask again; trying for ever would keep the environment from everything else.
		return nil, refuse("NotAdmitted", fmt.Errorf("commit %.10s: %w", hash, err))
	}
	if err != nil {
		return nil, refuseUnlessWorld("NotAdmitted", fmt.Errorf("commit %.10s: %w", hash, err))
	}
	c := &candidate{source: r.source(), info: ReleaseInfo{
		Number: h.Number + 1, Commit: commit.Hash, Kind: KindDeploy, By: commit.Author, Subject: commit.Subject, Began: r.Now(),
	}}
	rendered, err := r.Repository.Render(ctx, commit.Hash)
	if err != nil {
		return c, refuseUnlessWorld("RenderFailed", fmt.Errorf("render %.10s: %w", hash, err))
	}
	c.set, c.policyBytes = rendered.Set, rendered.Policy
	r.tell(Event{Kind: EventRendered, Release: &c.info, Message: fmt.Sprintf("%d objects in %s, peak %d MiB, cached %t", c.set.Len(), rendered.Took.Round(time.Millisecond), rendered.PeakRSS>>20, rendered.Cached)})
	if err := c.adopt(rendered.PolicyPath, r.Now); err != nil {
		return c, refuse("PolicyInvalid", err)
	}
	if c.set.Len() == 0 {
		return c, refuse("EmptyRender", fmt.Errorf("%s renders no object at all; to take an environment away, delete its Environment with prune: onDelete", r.Environment.Spec.Path))
	}
	return c, r.validate(ctx, h, c)
}

// adopt reads the policy and compiles its health rules.
func (c *candidate) adopt(path string, now func() time.Time) (err error) {
	if c.policy, err = v1alpha1.ParsePolicy(c.policyBytes); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if c.judge, err = newJudge(c.policy, now); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// validate finds everything that is wrong with the set before the API server is asked.
func (r *Reconciler) validate(ctx context.Context, h journal.Head, c *candidate) error {
	base, err := r.deployed(ctx, h)
	if err != nil {
		return err
	}
	server, err := r.Cluster.ServerVersion(ctx)
	if err != nil {
		return err
	}
	checker := validate.Checker{
		Environment: r.Environment, Policy: c.policy, Owned: sortedRecords(base.inventory),
		World: newLookup(r.Cluster, c.set), SystemNamespace: r.System, ServerVersion: server,
	}
	findings, err := checker.Check(ctx, c.set)
	if err != nil {
		return fmt.Errorf("validate: %w", err)
	}
	var faults []string
	for _, f := range findings {
		if f.Severity == validate.Error {
			faults = append(faults, f.String())
		} else {
			c.warnings = append(c.warnings, f.String())
		}
	}
	if len(faults) > 0 {
		return &RefusedError{Reason: "Invalid", Findings: faults, Cause: errors.New("the commit was refused")}
	}
	return nil
}

// The kinds of releases.
const (
	KindDeploy   = "deploy"
	KindRollback = "rollback"
	KindReturn   = "return"
	KindRemove   = "delete"
)

// fromMark makes a candidate of a bundle that is kept in the cluster: neither Git nor kustomize is needed.
func (r *Reconciler) fromMark(ctx context.Context, h journal.Head, m *journal.Mark, kind string) (*candidate, error) {
	c := &candidate{source: m.Source, info: ReleaseInfo{Number: h.Number + 1, Commit: m.Commit, Kind: kind, Began: r.Now()}}
	var err error
	if c.set, err = r.loadSet(ctx, m.Set); err != nil {
		return nil, err
	}
	if c.policyBytes, err = r.loadBlob(ctx, m.Policy); err != nil {
		return nil, err
	}
	return c, c.adopt("release.yaml of "+m.Commit, r.Now)
}

func (r *Reconciler) loadSet(ctx context.Context, digest string) (*object.Set, error) {
	if digest == "" {
		return object.NewSet(nil)
	}
	b, err := r.Journal.Load(ctx, digest)
	if err != nil {
		return nil, err
	}
	return b.Set()
}

func (r *Reconciler) loadBlob(ctx context.Context, digest string) ([]byte, error) {
	if digest == "" {
		return nil, nil
	}
	b, err := r.Journal.Load(ctx, digest)
	if err != nil {
		return nil, err
	}
	return b.Blob()
}
