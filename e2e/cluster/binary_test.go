package cluster

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheDigestFollowsWhatIsCompiled(t *testing.T) {
	base := map[string]string{"go.mod": "module m", "go.sum": "s", "main.go": "package main", "sim/sim.go": "package sim"}
	sum := func(change map[string]string, args ...string) string {
		dir := t.TempDir()
		write(t, dir, base)
		write(t, dir, change)
		digest, err := (&build{dir: dir, args: args}).sum([]byte("go1.26"))
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	for name, tt := range map[string]struct {
		change map[string]string
		same   bool
	}{
		"the same sources elsewhere":   {nil, true},
		"a test":                       {map[string]string{"sim/sim_test.go": "package sim"}, true},
		"a page":                       {map[string]string{"README.md": "words"}, true},
		"a source":                     {map[string]string{"main.go": "package main // changed"}, false},
		"a source in a folder":         {map[string]string{"sim/sim.go": "package sim // changed"}, false},
		"another source":               {map[string]string{"sim/more.go": "package sim"}, false},
		"a version":                    {map[string]string{"go.mod": "module m // changed"}, false},
		"a checksum":                   {map[string]string{"go.sum": "changed"}, false},
		"text moved between the files": {map[string]string{"go.mod": "module ", "go.sum": "ms"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if same := sum(tt.change) == sum(nil); same != tt.same {
				t.Errorf("same digest: %v, want %v", same, tt.same)
			}
		})
	}
	if sum(nil, "-race") == sum(nil) {
		t.Error("other build flags give the same digest")
	}
}

func TestOldBinariesAreEvictedAndTheNewOneNever(t *testing.T) {
	home := t.TempDir()
	for i, name := range []string{"a", "b", "c", "d", "new"} {
		write(t, home, map[string]string{name + "/devcluster": "x"})
		when := time.Now().Add(time.Duration(i) * time.Hour)
		if name == "new" { // a clock that was set back
			when = time.Now().Add(-time.Hour)
		}
		if err := os.Chtimes(filepath.Join(home, name, "devcluster"), when, when); err != nil {
			t.Fatal(err)
		}
	}
	if err := evict(home, filepath.Join(home, "new", "devcluster")); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(home, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range left {
		names = append(names, filepath.Base(l))
	}
	if diff := cmp.Diff([]string{"c", "d", "new"}, names); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestTheMeterCountsPackagesAndKeepsComplaints(t *testing.T) {
	m := &meter{begin: time.Now()}
	for _, piece := range []string{
		"go: downloading k8s.io/api v0.37.2\nk8s.io/a", "pi/core/v1\nk8s.io/kubernetes/cmd/kube-apiserver/app\n",
		"# k8s.io/broken\nbroken.go:3:1: undefined: x\n",
	} {
		if n, err := io.WriteString(m, piece); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	if m.compiled != 2 {
		t.Errorf("%d packages, want 2", m.compiled)
	}
	if got, want := strings.TrimSpace(m.complaints()), "# k8s.io/broken\nbroken.go:3:1: undefined: x"; got != want {
		t.Errorf("complaints: %q, want %q", got, want)
	}
}

func TestASecondProcessWaitsForTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	// Another open file is to the kernel what another process would be.
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, path, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a lock that is held was given: %v", err)
	}
	unlock()
	again, err := lock(t.Context(), path, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestOutsideACheckoutTheErrorSaysWhatToDo(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := Binary(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "run inside a checkout") {
		t.Errorf("got %v", err)
	}
}
