package cluster

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// kept is how many binaries (140 MB each) of earlier sources stay in the cache: enough to go back and forth between branches.
const kept = 2

// Binary returns the path of the devcluster binary built from the module beside this one, that is from devcluster/ in the
// working directory or above. It is cached in the user's cache directory by a digest of all that it is made from, so only the
// first build on a machine is slow: several minutes, with a line to progress (may be nil) every few seconds.
// Parallel processes build once.
func Binary(ctx context.Context, progress io.Writer) (path string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("build devcluster: %w", err)
		}
	}()
	if progress == nil {
		progress = io.Discard
	}
	src, err := sources()
	if err != nil {
		return "", err
	}
	b := build{dir: src}
	if err := b.read(ctx); err != nil {
		return "", err
	}
	home, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	home = filepath.Join(home, "nexus", "devcluster")
	path = filepath.Join(home, b.digest, "devcluster")
	if touch(path) {
		return path, nil
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(home, "lock"), progress)
	if err != nil {
		return "", err
	}
	defer unlock()
	if touch(path) { // by the process that had the lock
		return path, nil
	}
	if err := b.run(ctx, path, progress); err != nil {
		return "", err
	}
	return path, evict(home, path)
}

// Kubectl makes dir/kubectl, that of the control plane's own version, for machines that have none. Errors are those of Binary.
func Kubectl(ctx context.Context, dir string) error {
	path, err := Binary(ctx, nil)
	if err != nil {
		return err
	}
	return os.Symlink(path, filepath.Join(dir, "kubectl"))
}

// sources finds the devcluster module.
func sources() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "devcluster", "go.mod"))
		if err == nil && bytes.HasPrefix(mod, []byte("module github.com/nexus-platform/reconciler/devcluster\n")) {
			return filepath.Join(dir, "devcluster"), nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no devcluster/go.mod in %s or above: run inside a checkout of the reconciler's repository", wd)
		}
	}
}

// build is one way to build devcluster.
type build struct {
	dir    string   // the module
	args   []string // of the go command, without the output
	digest string   // of everything that the binary depends on
}

var kubernetesVersion = regexp.MustCompile(`(?m)^\s+k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)$`)

// read looks at the sources and the toolchain, and fills args and digest.
func (b *build) read(ctx context.Context) error {
	toolchain, err := b.command(ctx, "env", "GOVERSION", "GOAMD64", "GOARM64", "GOEXPERIMENT").Output()
	if err != nil {
		return fmt.Errorf("ask the go command for its version (is Go installed?): %w", err)
	}
	mod, err := os.ReadFile(filepath.Join(b.dir, "go.mod"))
	if err != nil {
		return err
	}
	version := kubernetesVersion.FindSubmatch(mod)
	if version == nil {
		return errors.New("go.mod does not require k8s.io/kubernetes")
	}
	// Without these the API server calls itself v0.0.0-master.
	ldflags := "-s -w"
	for _, set := range []string{
		"gitVersion=" + string(version[1]), "gitMajor=" + string(version[2]), "gitMinor=" + string(version[3]),
		"gitTreeState=clean", "gitCommit=devcluster", "buildDate=1970-01-01T00:00:00Z",
	} {
		ldflags += " -X k8s.io/component-base/version." + set
	}
	b.args = []string{"build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", ldflags}
	b.digest, err = b.sum(toolchain)
	return err
}

// sum digests the toolchain, the arguments and every file that is compiled.
func (b *build) sum(toolchain []byte) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s/%s\n%s\n%q\n", runtime.GOOS, runtime.GOARCH, toolchain, b.args)
	err := filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		source := strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go")
		if !source && d.Name() != "go.mod" && d.Name() != "go.sum" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(b.dir, path)
		fmt.Fprintf(h, "%q %d\n%s", filepath.ToSlash(rel), len(text), text)
		return err
	})
	return hex.EncodeToString(h.Sum(nil))[:24], err
}

// command prepares a go command in the module. Everything that decides over the result is set here or part of the digest:
// neither a workspace nor GOFLAGS of the caller may change it, nor cause a second compilation of all packages.
func (b *build) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	return cmd
}

// run builds into path, which appears only when it is complete.
func (b *build) run(ctx context.Context, path string, progress io.Writer) error {
	temp := filepath.Join(filepath.Dir(filepath.Dir(path)), "new") // the lock's holder has it alone
	defer os.Remove(temp)
	meter := &meter{begin: time.Now()}
	cmd := b.command(ctx, append(slices.Clone(b.args), "-o", temp, ".")...)
	cmd.Stderr = meter
	fmt.Fprintln(progress, "building devcluster, a real control plane; only the first build on a machine takes minutes")
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := meter.report(progress, 5*time.Second)
	err := cmd.Wait()
	stop()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, meter.complaints())
	}
	fmt.Fprintf(progress, "devcluster built in %s\n", meter.elapsed())
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// touch says whether the binary is there, and notes that it was used.
func touch(path string) bool {
	if _, err := os.Stat(path); err != nil {
		return false
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // a cache that cannot be written to is still a cache
	return true
}

// evict removes the binaries used longest ago, but never the one at path.
func evict(home, path string) error {
	binaries, err := filepath.Glob(filepath.Join(home, "*", "devcluster"))
	if err != nil {
		return err
	}
	used := map[string]time.Time{}
	for _, b := range binaries {
		if info, err := os.Stat(b); err == nil && b != path {
			used[b] = info.ModTime()
		}
	}
	old := slices.SortedFunc(func(yield func(string) bool) {
		for b := range used {
			if !yield(b) {
				return
			}
		}
	}, func(a, b string) int { return cmp.Or(used[b].Compare(used[a]), strings.Compare(a, b)) })
	for _, b := range old[min(kept, len(old)):] {
		if err := os.RemoveAll(filepath.Dir(b)); err != nil {
			return err
		}
	}
	return nil
}
