//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

var plan struct {
	sync.Mutex
	text    string
	reached int // how often since the plan is this one
}

// Here kills or stops the process if the plan says so of this boundary.
func Here(name Name) {
	trace(name)
	plan.Lock()
	defer plan.Unlock()
	if text := planned(); text != plan.text {
		plan.text, plan.reached = text, 0
	}
	boundary, action, _ := strings.Cut(plan.text, "=")
	if boundary != string(name) {
		return
	}
	plan.reached++
	action, at, counted := strings.Cut(action, "@")
	if want, err := strconv.Atoi(at); counted && (err != nil || plan.reached != want) {
		return
	}
	switch action {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until the kernel has ended us
	case "stop":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	default:
		panic(fmt.Sprintf("%s: unknown action %q", Variable, action))
	}
}

// planned is the plan as it is now.
func planned() string {
	text := os.Getenv(Variable)
	file, named := strings.CutPrefix(text, "@")
	if !named {
		return text
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "" // there is none yet
	}
	return strings.TrimSpace(string(b))
}

// trace writes down that the boundary was reached, before anything else happens there.
func trace(name Name) {
	file := os.Getenv(TraceVariable)
	if file == "" {
		return
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", TraceVariable, err))
	}
	defer f.Close()
	if _, err := f.WriteString(string(name) + "\n"); err != nil {
		panic(fmt.Sprintf("%s: %v", TraceVariable, err))
	}
}

// Without reports that a rule is left out.
func Without(rule Rule) bool { return os.Getenv(MutantVariable) == string(rule) }

// Now is the time on a clock that may be off.
func Now() time.Time {
	off := os.Getenv(ClockVariable)
	if off == "" {
		return time.Now()
	}
	d, err := time.ParseDuration(off)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", ClockVariable, err))
	}
	return time.Now().Add(d)
}
