// Package daemon tests the reconciler as its users have it: the built binary, run as a process with no more rights than the install gives it.
package daemon

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
)

func TestMain(m *testing.M) { clustertest.Main(house{m}) }

// common is what the tests of this process share: the binary, and one control plane with one daemon at work.
var common struct {
	build  sync.Once
	dir    string
	binary string
	err    error

	settle sync.Once
	site   *site
	daemon *process
}

// house stops the shared daemon before its cluster goes.
type house struct{ *testing.M }

func (h house) Run() int {
	code := h.M.Run()
	if common.daemon != nil {
		if err := common.daemon.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		if code != 0 {
			fmt.Fprintf(os.Stderr, "end of the shared daemon's log:\n%s\n", common.daemon.tail(60))
		}
	}
	if common.dir != "" {
		_ = os.RemoveAll(common.dir) // a temporary folder
	}
	return code
}

// binary builds the reconciler once, with the race detector if this test has it.
func binary(tb testing.TB) string {
	tb.Helper()
	common.build.Do(func() {
		if common.dir, common.err = os.MkdirTemp("", "nexus-daemon-test-"); common.err != nil {
			return
		}
		common.binary = filepath.Join(common.dir, "reconciler")
		args := []string{"build", "-o", common.binary}
		if raced {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", append(args, "../../cmd/reconciler")...).CombinedOutput(); err != nil {
			common.err = fmt.Errorf("build the reconciler: %w\n%s", err, out)
		}
	})
	if common.err != nil {
		tb.Fatal(common.err)
	}
	return common.binary
}

// shared is the control plane with the daemon that most tests use. Tests that stop either have their own.
func shared(tb testing.TB) *site {
	tb.Helper()
	binary(tb)
	common.settle.Do(func() {
		s := newSite(tb, clustertest.Shared(tb), filepath.Join(common.dir, "shared"))
		s.install(tb)
		common.daemon = s.spawn(tb, s.daemonKubeconfig(tb))
		common.site = s
	})
	if common.site == nil {
		tb.Fatal("the shared site could not be set up; see the first test that failed")
	}
	return common.site
}
