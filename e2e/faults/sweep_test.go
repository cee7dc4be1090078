package faults

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
// done to every write of the head and to every fifth of the others, each to another fifth; and what lasts some seconds, or leaves an
// environment that a person has to found anew: to every write of the head and to some of the others.
var (
	decided   = []proxy.Mode{proxy.KillBefore, proxy.KillAfterApply, proxy.DropAnswer, proxy.Late}
	staggered = slices.DeleteFunc(slices.Concat(proxy.Wire, proxy.Refusals, []proxy.Mode{proxy.Terminate, proxy.Edit, proxy.Delete}),
		func(m proxy.Mode) bool { return slices.Contains(decided, m) })
	slow = []proxy.Mode{proxy.Away, proxy.LoseHead, proxy.Hold, proxy.Push, proxy.Lose, proxy.Withdraw, proxy.LoseBundle}
)

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
			if k%5 == i%5 {
				add(mode, i, false)
			}
		}
		for k, mode := range slow {
			if k == i%len(slow) {
				add(mode, i, false)
			}
		}
	}
	heads := map[bool][]proxy.Step{false: {proxy.S3, proxy.S7, proxy.S11, proxy.S13}, true: {proxy.S3, proxy.S7, proxy.R1, proxy.R3}}
	for _, step := range heads[bad] { // each is one write: all that can be done to it
		for _, mode := range slices.Concat(staggered, slow) {
			all = append(all, plannedRun{name: fmt.Sprintf("%s %s at %s", word, mode, step), bad: bad, plans: []proxy.Plan{{Mode: mode, Step: step, Name: "nexus-head"}}})
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

// results are kept in a file, one JSON document a line, so that a sweep that was interrupted goes on.
type results struct {
	mu   sync.Mutex
	all  []result
	done map[string]bool
	file *os.File
}

func openResults(t *testing.T, name string) *results {
	t.Helper()
	r := &results{done: map[string]bool{}}
	if *state == "" {
		return r
	}
	if err := os.MkdirAll(*state, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.file, err = os.OpenFile(filepath.Join(*state, name+".jsonl"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.file.Close() })
	r.read(r.file)
	return r
}

// read takes over what an earlier sweep wrote.
func (r *results) read(file io.Reader) {
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		var one result
		if json.Unmarshal(line, &one) == nil { // the last line may be half written
			r.note(one)
		}
		if err != nil {
			return
		}
	}
}

// note takes a result in the place of an earlier one of the same run. What failed is done again.
func (r *results) note(one result) {
	r.all = append(slices.DeleteFunc(r.all, func(was result) bool { return was.Case == one.Case }), one)
	r.done[one.Case] = len(one.Violations) == 0
}

func (r *results) add(t *testing.T, one result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(one)
	if r.file != nil {
		b, err := json.Marshal(one)
		if err == nil {
			_, err = r.file.Write(append(b, '\n'))
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// drive does the runs in lanes side by side.
func drive(t *testing.T, s *site, runs []plannedRun, into *results, o laneOptions, count int) {
	driveUntil(t, s, runs, into, o, count, time.Time{})
}

// driveUntil is drive that begins no run after a time, unless that is zero.
func driveUntil(t *testing.T, s *site, runs []plannedRun, into *results, o laneOptions, count int, until time.Time) {
	todo := make(chan plannedRun, len(runs))
	wanted := regexp.MustCompile(*only)
	for _, r := range runs {
		if !into.done[r.name] && wanted.MatchString(r.name) {
			todo <- r
		}
	}
	close(todo)
	for i := range min(count, len(todo)) {
		t.Run(fmt.Sprintf("lane %d", i+1), func(t *testing.T) {
			t.Parallel()
			var l *lane
			for planned := range todo {
				if !until.IsZero() && time.Now().After(until) {
					return
				}
				if l == nil {
					var err error
					if l, err = newLane(t, s, o); err != nil {
						t.Fatal(err)
					}
				}
				l.boundary = planned.boundary
				r := l.run(t.Context(), planned.name, planned.bad, planned.plans...)
				if len(r.Violations) > 0 {
					t.Errorf("%s\n%s", r, l.evidence())
				}
				if len(r.Violations) > 0 || r.End == "halted" { // what is left is not what the next run expects
					l.halt()
					l = nil
				}
				into.add(t, r)
			}
		})
	}
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
		var k, n int
		if _, err := fmt.Sscanf(*shard, "%d/%d", &k, &n); err != nil || k < 1 || k > n {
			t.Fatalf("-shard %q: want K/N with K from 1 to N", *shard)
		}
		// In one order on every machine, so that what is done so far, and each shard, is a sample of the whole.
		rand.New(rand.NewPCG(1, 1)).Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
		part := runs[:0]
		for i, r := range runs {
			if i%n == k-1 {
				part = append(part, r)
			}
		}
		runs = append(decisive(), part...)
	} else if *only == "" {
		runs = append(decisive(), sample(t, runs, 30)...)
	}
	into := openResults(t, "sweep")
	t.Run("faults", func(t *testing.T) { drive(t, s, runs, into, laneOptions{}, *lanes) })
	report(t, "sweep", into.all)
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

// sample chooses some runs by the seed, which is printed.
func sample(t *testing.T, runs []plannedRun, n int) []plannedRun {
	t.Helper()
	r := random(t)
	r.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
	return runs[:min(n, len(runs))]
}

func random(t *testing.T) *rand.Rand {
	t.Helper()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("seed %d (-args -seed %d does the same again)", *seed, *seed)
	return rand.New(rand.NewPCG(*seed, 0))
}
