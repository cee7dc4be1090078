package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
)

// result is how one run ended.
type result struct {
	Case       string        `json:"case"`
	Build      string        `json:"build,omitempty"` // of the daemon: the first digits of its SHA-256
	Mode       proxy.Mode    `json:"mode,omitempty"`
	Bad        bool          `json:"bad,omitempty"`
	Step       proxy.Step    `json:"step,omitempty"`  // of the write that the fault was done to
	Write      string        `json:"write,omitempty"` // that write
	Writes     int           `json:"writes"`          // of the whole run
	Outcome    string        `json:"outcome,omitempty"`
	End        string        `json:"end,omitempty"`      // old, new, mixed or halted
	Fired      int           `json:"fired"`              // faults that were done
	Start      time.Duration `json:"start,omitempty"`    // from the start of a process to its first write
	Release    time.Duration `json:"release,omitempty"`  // from the push to the outcome
	Recovery   time.Duration `json:"recovery,omitempty"` // from the start of a process, or from the fault, to the outcome
	Took       time.Duration `json:"took"`
	Violations []string      `json:"violations,omitempty"`
}

// run releases a commit with faults planned, waits for what becomes of it, checks the invariants, and releases the next good commit.
func (l *lane) run(ctx context.Context, name string, bad bool, plans ...proxy.Plan) result {
	began := time.Now()
	r := result{Case: name, Bad: bad}
	if len(plans) > 0 {
		r.Mode = plans[0].Mode
	}
	l.begin(ctx)
	l.proxy.Arm(plans...)
	if l.boundary != "" {
		if err := os.WriteFile(l.failpoints(), []byte(l.boundary), 0o600); err != nil {
			l.violate("%v", err)
		}
	}
	commit := l.push("next", l.next(bad))
	first, pushed := commit, time.Now()
	outcome, err := l.endsUnless(commit, haltedFor, l.superseding)
	if newer := l.superseding(); newer != "" && err == nil {
		outcome, err = l.ends(newer)
	}
	decided := time.Now()
	if err != nil {
		l.violate("I11: %v", err)
	}
	r.Outcome, r.Release = outcome, decided.Sub(pushed)
	l.proxy.Settle()
	l.measure(&r, decided)
	if l.newer != "" {
		commit = l.newer
	}
	l.calm()
	if err := errors.Join(l.verdict(), l.tidyUp(ctx)); err != nil {
		l.violate("the daemon: %v", err)
	}
	switch {
	case l.withdrawn && l.decided(first): // what the withdrawn release adopted and defined is not as before it
		r.End = "old"
	case outcome != "Halted" && err == nil:
		r.End = l.checkWorld(ctx, commit)
	default:
		r.End = strings.ToLower(outcome)
	}
	if l.options.outside && slices.Contains([]string{"old", "new"}, r.End) {
		l.checkOutside(r.End)
	}
	writes := l.proxy.Writes()
	for _, w := range writes {
		if w.N > 0 && w.Step != proxy.Projection {
			r.Writes++
		}
	}
	l.history = writes
	l.checkHistory(writes)
	if b, err := os.ReadFile(l.failpoints() + ".trace"); err == nil {
		l.traced = strings.Fields(string(b))
	}
	l.checkEnd(&r)
	l.proxy.Arm()
	if outcome == "Halted" {
		l.checkHalted(ctx, l.condition())
	} else if err := l.goBack(); err != nil && r.Mode == proxy.LoseBundle && strings.Contains(l.condition(), "Halted") {
		r.End = "halted" // what is gone for good is missed only when it is needed
		l.checkHalted(ctx, l.condition())
	} else if err != nil {
		l.violate("I11: %v", err)
	}
	r.Violations, r.Took = l.violations, time.Since(began)
	return r
}

// decided reports that a commit was released for good.
func (l *lane) decided(commit string) bool {
	return slices.ContainsFunc(l.proxy.Writes(), func(w proxy.Write) bool {
		return w.Applied && w.Step == proxy.S11 && w.Head.Release.Commit == commit
	})
}

// measure notes which writes the faults were done to, and how long it took from there.
func (l *lane) measure(r *result, decided time.Time) {
	from := time.Time{}
	if fired := l.proxy.Fired(); len(fired) > 0 {
		r.Step, r.Write, r.Fired = fired[0].Step, fired[0].String(), len(fired)-l.undone
		if l.lost != "" {
			r.Write += ": the " + l.lost + " is gone"
		}
		from = fired[len(fired)-1].At
	}
	if n := len(l.starts); n > 0 {
		if l.boundary != "" {
			r.Fired, r.Write = n, l.boundary
			r.Step = l.stepOf(l.boundary, l.starts[0])
		}
		from = l.starts[n-1]
		r.Start = l.firstWrite(from)
	}
	if !from.IsZero() {
		r.Recovery = decided.Sub(from)
	}
}

// command is what a text tells a person to type.
var command = regexp.MustCompile("`(kubectl [^`]+)`")

// checkHalted: who has to act is told what happened, what is safe, and the command that helps; and it does help.
func (l *lane) checkHalted(ctx context.Context, condition string) {
	told := command.FindStringSubmatch(condition)
	for _, words := range []string{"Halted", "stand", "nothing is written meanwhile"} {
		if !strings.Contains(condition, words) {
			l.violate("Halted without %q: %s", words, condition)
		}
	}
	if told == nil {
		l.violate("Halted without a command: %s", condition)
		return
	}
	good := l.push("after the halt", l.base())
	if out, err := l.enter(ctx, told[1]); err != nil {
		l.violate("%s: %v\n%s", told[1], err, out)
		return
	}
	if end, err := l.endsUnless(good, mended, func() string { return "" }); err != nil || end != "Succeeded" {
		l.violate("I11: after %s the next good commit ended as %s: %v", told[1], end, err)
		return
	}
	w, err := l.look(ctx)
	if err != nil {
		l.violate("look after the halt: %v", err)
	}
	found, want := w.generalized(l.group), maps.Clone(l.old)
	for _, name := range []string{"ConfigMap/theirs", "CustomResourceDefinition/widgets.GROUP", "Widget/w"} { // the journal knew whose they were
		delete(found, name)
		delete(want, name)
	}
	if diff := difference(want, found); diff != "" {
		l.violate("I2: begun anew, but:\n%s", diff)
	}
}

// enter does what a person would type.
func (l *lane) enter(ctx context.Context, line string) (string, error) {
	c := exec.CommandContext(ctx, "sh", "-c", line)
	c.Env = append(os.Environ(), "KUBECONFIG="+l.Kubeconfig, "PATH="+l.dir+":"+os.Getenv("PATH"))
	out, err := c.CombinedOutput()
	return string(out), err
}

// begin forgets the run before.
func (l *lane) begin(ctx context.Context) {
	l.withdrawn, l.lost = false, ""
	l.violations, l.newer, l.undone, l.starts, l.replaced = nil, "", 0, nil, map[string]bool{}
	if err := l.prepare(ctx); err != nil {
		l.violate("prepare: %v", err)
	}
	var err error
	if l.before, err = l.look(ctx); err != nil {
		l.violate("look before: %v", err)
	}
	l.begun, _ = l.proxy.Head()
}

// firstWrite is how long after the start of a process its first write came.
func (l *lane) firstWrite(started time.Time) time.Duration {
	for _, w := range l.proxy.Writes() {
		if w.Step != proxy.Unnumbered && w.At.After(started) { // a Lease is held, an event told, before anything is done
			return w.At.Sub(started)
		}
	}
	return 0
}

// calm waits until nothing was written for three intervals, Leases aside (I12).
func (l *lane) calm() {
	limit := time.Now().Add(deadline)
	seen := func() int {
		n := 0
		for _, w := range l.proxy.Writes() {
			if !strings.HasPrefix(w.Resource, "leases.") {
				n++
			}
		}
		return n
	}
	for quiet, since := seen(), time.Now(); time.Since(since) < 3*interval; {
		if time.Now().After(limit) {
			l.violate("I12: it goes on writing")
			return
		}
		<-time.After(interval / 5)
		if now := seen(); now != quiet {
			quiet, since = now, time.Now()
		}
	}
}

// String is a result in a line.
func (r result) String() string {
	text := fmt.Sprintf("%s: %s, %s at %s (%s), %d writes, recovered in %s", r.Case, r.End, r.Outcome, r.Step, r.Write, r.Writes, r.Recovery.Round(time.Millisecond))
	if len(r.Violations) > 0 {
		text += "\n    " + strings.Join(r.Violations, "\n    ")
	}
	return text
}
