//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var reached atomic.Int64

// Here kills the process if the plan names this boundary.
func Here(name Name) {
	planned, action, _ := strings.Cut(os.Getenv(Variable), "=")
	if planned != string(name) {
		return
	}
	action, at, counted := strings.Cut(action, "@")
	n := reached.Add(1)
	if want, err := strconv.ParseInt(at, 10, 64); counted && (err != nil || n != want) {
		return
	}
	if action != "kill" {
		panic(fmt.Sprintf("%s: unknown action %q", Variable, action))
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until the kernel has ended us
}
