// Package render turns a commit's tree into a set of Kubernetes objects, with kustomize and SOPS, in a process that can reach nothing.
package render

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"runtime/debug"
	"sync"
	"time"

	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/render/internal/sandbox"
	"github.com/nexus-platform/reconciler/render/internal/wire"
)

// Renderer renders overlays, each in a process of its own, and remembers the last results. Its zero value
// works; the fields are set before use. It may be used concurrently.
type Renderer struct {
	Command  []string // starts a process that calls ChildMain; default: this program with ChildVerb
	Limits   Limits
	Parallel int // processes at once, each of up to Limits.Memory; default 1

	once    sync.Once
	slots   chan struct{}
	mu      sync.Mutex
	results []remembered // the newest first
}

// Request is one overlay of one commit.
type Request struct {
	Tree    Tree
	Path    string   // directory of the overlay, relative to the root of the repository
	AgeKeys []string // for SOPS files: age identities, each as a line or as a whole key file; secret
}

// Result is what an overlay describes.
type Result struct {
	Set        *object.Set
	Policy     []byte // content of PolicyName beside the kustomization; nil if there is none
	PolicyPath string // where it is, or would be
	// Reads holds every path that was read or looked for, with Git's hash of the file, "directory" and its real
	// path, or "" where nothing was. A tree that answers the same renders the same.
	Reads   map[string]string
	Cached  bool // nothing was started: every read would read the same
	PeakRSS int64
	Took    time.Duration
}

// Render renders an overlay. What the commit did wrong is an Errors, a *LimitError, or a *CrashError; a *DuplicateError of package
// object where two documents describe one object. A *SandboxError says that nothing was read at all.
// Errors of the Tree are found in it with errors.As.
func (r *Renderer) Render(ctx context.Context, req Request) (*Result, error) {
	began := time.Now()
	if !fs.ValidPath(req.Path) {
		return nil, &KustomizationError{File: req.Path, Reason: "the path is absolute, leaves the repository or is not clean"}
	}
	key := req.key()
	if hit := r.cached(key, req.Tree); hit != nil {
		return hit, nil
	}
	if err := r.acquire(ctx); err != nil {
		return nil, err
	}
	defer func() { <-r.slots }()
	limits := r.Limits.OrDefault()
	policy := path.Join(req.Path, PolicyName)
	files := &served{
		tree: req.Tree, limits: limits, keep: policy,
		reads: make(map[string]string), failures: make(map[string]error),
	}
	objects, peak, err := r.run(ctx, wire.Job{Path: req.Path, Limits: limits, AgeKeys: req.AgeKeys}, files)
	if err != nil {
		return nil, err
	}
	set, err := object.NewSet(objects)
	if err != nil {
		return nil, err
	}
	result := &Result{Set: set, Policy: files.kept, PolicyPath: policy, Reads: files.reads, PeakRSS: peak, Took: time.Since(began)}
	r.remember(key, result)
	return result, nil
}

// acquire waits for one of the Parallel slots.
func (r *Renderer) acquire(ctx context.Context) error {
	r.once.Do(func() { r.slots = make(chan struct{}, max(1, r.Parallel)) })
	select {
	case <-ctx.Done():
		return ctx.Err()
	case r.slots <- struct{}{}:
		return nil
	}
}

// key names all that a result depends on beside the files: overlay, keys, and the program that renders.
func (req Request) key() string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %s", req.Path, req.AgeKeys, version())
	return hex.EncodeToString(sum.Sum(nil))
}

// version names this program's build. It matters where results outlive a process, and costs nothing here.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.String()
	}
	return ""
}

// Sandboxed reports whether this system can lock a render in. Where it cannot, references that leave the
// repository are still found and refused before kustomize runs.
func Sandboxed() bool { return sandbox.Available }

// Check starts a render process of this program and has it lock itself in. Its error is a *SandboxError, also where the system has no sandbox.
func Check() error {
	if !Sandboxed() {
		return &SandboxError{Reason: "this system has no seccomp"}
	}
	return (&Renderer{}).check()
}
