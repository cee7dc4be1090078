package faults

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
)

// What the sample of the sweep, and the samples of all other tests together, may take before no run is begun any more: `make test`
// has to end.
const (
	sweepTime   = 2 * time.Minute
	samplesTime = 4 * time.Minute
)

var samplesBegan = time.Now()

// bounded is when a sample begins no run any more; zero: never, where somebody says what to do.
func bounded() time.Time {
	if *full || *only != "" {
		return time.Time{}
	}
	return samplesBegan.Add(samplesTime)
}

// boundedSweep is bounded for the sweep, which has its time whichever test comes first.
func boundedSweep() time.Time {
	if bounded().IsZero() {
		return time.Time{}
	}
	return time.Now().Add(sweepTime)
}

func past(until time.Time) bool { return !until.IsZero() && time.Now().After(until) }

// drive does the runs in lanes side by side.
func drive(t *testing.T, s *site, runs []plannedRun, into *results, o laneOptions, count int) {
	driveUntil(t, s, runs, into, o, count, bounded())
}

// driveUntil is drive that begins no run after a time, unless that is zero. One is done however late it is: each kind of fault at least.
func driveUntil(t *testing.T, s *site, runs []plannedRun, into *results, o laneOptions, count int, until time.Time) {
	todo := make(chan plannedRun, len(runs))
	wanted := regexp.MustCompile(*only)
	for _, r := range part(t, runs) {
		if !into.done[r.name] && wanted.MatchString(r.name) {
			todo <- r
		}
	}
	close(todo)
	planned := len(todo)
	t.Cleanup(func() { t.Logf("%d of %d runs done", planned-len(todo), planned) })
	if past(until) {
		count = 1
	}
	for i := range min(count, len(todo)) {
		t.Run(fmt.Sprintf("lane %d", i+1), func(t *testing.T) {
			t.Parallel()
			var l *lane
			for first := i == 0; first || !past(until); first = false {
				planned, more := <-todo
				if !more {
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
				if len(r.Violations) > 0 || r.End == "halted" || l.worn() { // what is left is not what the next run expects
					l.halt()
					l = nil
				}
				into.add(t, r)
			}
		})
	}
}

// part is what -shard says is to be done here. It is taken from the whole, so that what is done already, or -only, moves nothing.
func part[T any](t *testing.T, all []T) []T {
	t.Helper()
	var k, n int
	if _, err := fmt.Sscanf(*shard, "%d/%d", &k, &n); err != nil || k < 1 || k > n {
		t.Fatalf("-shard %q: want K/N with K from 1 to N", *shard)
	}
	var mine []T
	for i, one := range all {
		if i%n == k-1 {
			mine = append(mine, one)
		}
	}
	return mine
}

// sample chooses some runs by the seed, which is printed.
func sample[T any](t *testing.T, runs []T, n int) []T {
	t.Helper()
	r := random(t)
	r.Shuffle(len(runs), func(i, j int) { runs[i], runs[j] = runs[j], runs[i] })
	return runs[:min(n, len(runs))]
}

// random is by the seed. A full sweep that is not given one has always the same: it is done in parts, one after the other or on
// several machines, and each has to choose the same runs.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	if *full && *seed == 0 {
		return rand.New(rand.NewPCG(1, 1))
	}
	return anew(t)
}

// anew is random that differs from one sweep to the next.
func anew(t *testing.T) *rand.Rand {
	t.Helper()
	t.Logf("seed %d (-args -seed %d does the same again)", sown(), sown())
	return rand.New(rand.NewPCG(sown(), 0))
}

// sown is the seed that was given, or one that was drawn.
func sown() uint64 {
	if *seed != 0 {
		return *seed
	}
	return drawn
}

var drawn = 1 + rand.Uint64()>>1

func TestAResumedSweepAndItsShardsChooseTheSameRuns(t *testing.T) {
	was := []any{*full, *seed, *shard}
	t.Cleanup(func() { *full, *seed, *shard = was[0].(bool), was[1].(uint64), was[2].(string) })
	*full, *seed = true, 0
	grid := func() []plannedRun {
		var all []plannedRun
		for i := range 50 {
			all = append(all, plannedRun{name: fmt.Sprint(i), plans: []proxy.Plan{{At: i}}})
		}
		return all
	}
	count := map[string]int{}
	for k := 1; k <= 3; k++ {
		*shard = fmt.Sprintf("%d/3", k)
		for _, r := range part(t, sample(t, grid(), 20)) {
			count[r.name]++
		}
	}
	*shard = "1/1"
	chosen := part(t, sample(t, grid(), 20))
	for _, r := range chosen {
		if count[r.name] != 1 {
			t.Errorf("run %s is in %d shards", r.name, count[r.name])
		}
	}
	if len(chosen) != 20 || len(count) != 20 {
		t.Errorf("%d chosen, %d in the shards", len(chosen), len(count))
	}
}
