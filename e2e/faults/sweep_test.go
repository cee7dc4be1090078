package faults

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/failpoint"
)

// A plannedRun is one point of the grid.
type plannedRun struct {
	name     string
	bad      bool
	plans    []proxy.Plan
	boundary string // of the protocol, at which a failpoint kills the daemon
}

// golden is what an undisturbed release passes.
type golden struct {
	writes     int                    // numbered ones
	boundaries map[failpoint.Name]int // how often each is reached
}

// What is done to every write of a release, because it decides what is left in the cluster and what the daemon knows of it; what is
// done to every write of the head and to some of the others, each to another; and what lasts some seconds, or leaves an
// environment that a person has to found anew: to every write of the head and to some of the others.
var (
	decided   = []proxy.Mode{proxy.KillBefore, proxy.KillAfterApply, proxy.DropAnswer, proxy.Late}
	staggered = slices.DeleteFunc(slices.Concat(proxy.Wire, proxy.Refusals, []proxy.Mode{proxy.Terminate, proxy.Edit, proxy.Delete}),
		func(m proxy.Mode) bool { return slices.Contains(decided, m) })
	slow = []proxy.Mode{proxy.Away, proxy.LoseHead, proxy.Hold, proxy.Push, proxy.Lose, proxy.Withdraw, proxy.LoseBundle}
)

// headSteps are the steps that a write of the head ends.
func headSteps(bad bool) []proxy.Step {
	if bad {
		return []proxy.Step{proxy.S3, proxy.S7, proxy.R1, proxy.R3}
	}
	return []proxy.Step{proxy.S3, proxy.S7, proxy.S11, proxy.S13}
}

// grid is the whole sweep of one release, good or bad.
func grid(bad bool, g golden) []plannedRun {
	word := map[bool]string{true: "bad", false: "good"}[bad]
	var all []plannedRun
	add := func(mode proxy.Mode, at int, shown bool) {
		class := map[bool]string{true: " shown", false: ""}[shown]
		all = append(all, plannedRun{name: fmt.Sprintf("%s %s%s@%d", word, mode, class, at), bad: bad, plans: []proxy.Plan{{Mode: mode, At: at, Shown: shown}}})
	}
	for i := 1; i <= g.writes; i++ {
		for _, mode := range decided {
			add(mode, i, false)
		}
		for k, mode := range staggered {
			if k == i%32 {
				add(mode, i, false)
			}
		}
		for k, mode := range slow {
			if k == i%(2*len(slow)) {
				add(mode, i, false)
			}
		}
	}
	for _, step := range headSteps(bad) { // each is one write: all that can be done to it
		for _, mode := range slices.Concat(staggered, slow) {
			all = append(all, plannedRun{name: fmt.Sprintf("%s %s at %s", word, mode, step), bad: bad, plans: []proxy.Plan{{Mode: mode, Step: step, Name: "nexus-head"}}})
		}
	}
	if !bad { // few writes are deletions after the decision: what is staggered would miss them
		for _, mode := range slices.Concat(staggered, slow) {
			if mode != proxy.Withdraw {
				all = append(all, plannedRun{name: fmt.Sprintf("%s %s at %s", word, mode, proxy.S12), plans: []proxy.Plan{{Mode: mode, Step: proxy.S12}}})
			}
		}
	}
	for i := 1; i <= 12; i++ {
		for k, mode := range []proxy.Mode{proxy.KillBefore, proxy.KillAfterApply, proxy.DropAnswer, proxy.Conflict, proxy.Unavailable, proxy.Forbidden} {
			if k%2 == i%2 {
				add(mode, i, true)
			}
		}
	}
	for _, name := range failpoint.All {
		for i := 1; i <= g.boundaries[name]; i++ {
			all = append(all, plannedRun{name: fmt.Sprintf("%s failpoint %s@%d", word, name, i), bad: bad, boundary: fmt.Sprintf("%s=kill@%d", name, i)})
		}
	}
	return all
}

// evidence is what passed the proxy in the run.
func (l *lane) evidence() string {
	var b strings.Builder
	for _, w := range l.history {
		fmt.Fprintf(&b, "    %s %3d %-10s %s: %d", w.At.Format("05.000"), w.N, w.Step, w, w.Status)
		if w.Head != nil {
			fmt.Fprintf(&b, " %s epoch %d", w.Head.State, w.Head.Epoch)
		}
		if w.Fault != proxy.None {
			fmt.Fprintf(&b, " <- %s", w.Fault)
		}
		if w.Late {
			fmt.Fprint(&b, " (late)")
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}

// measured makes an undisturbed run and counts.
func measured(t *testing.T, l *lane, bad bool) golden {
	t.Helper()
	if err := os.Remove(l.failpoints() + ".trace"); err != nil {
		t.Fatal(err)
	}
	r := l.run(t.Context(), "undisturbed", bad)
	if len(r.Violations) > 0 {
		t.Fatalf("without any fault: %s\n%s", r, l.evidence())
	}
	g := golden{writes: r.Writes, boundaries: map[failpoint.Name]int{}}
	for _, name := range l.traced {
		g.boundaries[failpoint.Name(name)]++
	}
	t.Logf("bad=%t: %d writes, %d boundaries, %s", bad, g.writes, len(l.traced), r)
	return g
}

// TestSweep does every planned fault to every write of a good release and of a bad one.
func TestSweep(t *testing.T) {
	s := newSite(t)
	var runs []plannedRun
	t.Run("undisturbed", func(t *testing.T) {
		l, err := newLane(t, s, laneOptions{})
		if err != nil {
			t.Fatal(err)
		}
		runs = append(grid(false, measured(t, l, false)), grid(true, measured(t, l, true))...)
	})
	if t.Failed() {
		return
	}
	if *full {
		runs = append(decisive(), sample(t, runs, len(runs))...) // shuffled: what is done so far, and each shard, is a sample of the whole
	} else if *only == "" {
		runs = append(decisive(), sample(t, runs, 30)...)
	}
	into := openResults(t, "sweep")
	t.Run("faults", func(t *testing.T) { driveUntil(t, s, runs, into, laneOptions{}, *lanes, boundedSweep()) })
	report(t, "sweep", into)
}

// decisive are the runs that every sample has: the answers to the writes of the head are lost, and what no rule but one stops.
func decisive() []plannedRun {
	var all []plannedRun
	for _, step := range []proxy.Step{proxy.S3, proxy.S11, proxy.S13, proxy.R1, proxy.R3} {
		bad := step == proxy.R1 || step == proxy.R3
		all = append(all, plannedRun{
			name: fmt.Sprintf("bad=%t %s at %s", bad, proxy.DropAnswer, step), bad: bad,
			plans: []proxy.Plan{{Mode: proxy.DropAnswer, Step: step, Name: "nexus-head"}},
		})
	}
	return append(all, plannedRun{name: "an adoption that arrives after its release was undone", plans: []proxy.Plan{{Mode: proxy.Withdraw, Step: proxy.S5, Name: "theirs"}}})
}
