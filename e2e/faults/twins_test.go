package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/failpoint"
)

// TestTwoDaemons stops the daemon that acts (SIGSTOP) for three times its Lease, in the middle of each write; the other takes
// over, and the first wakes up believing that it still leads.
func TestTwoDaemons(t *testing.T) {
	s := newSite(t)
	var runs []plannedRun
	for _, bad := range []bool{false, true} {
		for i := 1; i <= 69; i++ {
			for k, mode := range []proxy.Mode{proxy.Stop, proxy.KillAfterApply} {
				if k != i%6 { // each to every sixth write
					continue
				}
				runs = append(runs, plannedRun{name: fmt.Sprintf("twins %s bad=%t@%d", mode, bad, i), bad: bad, plans: []proxy.Plan{{Mode: mode, At: i}}})
			}
		}
	}
	if !*full {
		runs = sample(t, runs, 6)
	}
	into := openResults(t, "twins")
	t.Run("faults", func(t *testing.T) { drive(t, s, runs, into, laneOptions{twins: true}, *lanes) })
	report(t, "two daemons", into)
}

// TestDoubleFaults does a fault to each write of a small release, and another to each write of the recovery from it.
func TestDoubleFaults(t *testing.T) {
	s := newSite(t)
	var runs []plannedRun
	modes := []proxy.Mode{proxy.KillAfterApply, proxy.DropAnswer}
	for _, bad := range []bool{false, true} {
		for i := 1; i <= 24; i++ {
			for j := 1; j <= 20; j++ {
				for _, first := range modes {
					for _, second := range modes {
						runs = append(runs, plannedRun{
							name: fmt.Sprintf("double bad=%t %s@%d %s@%d", bad, first, i, second, j), bad: bad,
							plans: []proxy.Plan{{Mode: first, At: i}, {Mode: second, At: j}},
						})
					}
				}
			}
		}
	}
	n := 8
	if *full {
		n = 96
	}
	into := openResults(t, "doubles")
	runs = sample(t, runs, n)
	t.Run("faults", func(t *testing.T) { drive(t, s, runs, into, laneOptions{small: true}, *lanes) })
	report(t, "double faults", into)
}

// TestSoak does faults at random, several to a release, for as long as it is told.
func TestSoak(t *testing.T) {
	s := newSite(t)
	r := anew(t)
	modes := append([]proxy.Mode{proxy.Away, proxy.Hold, proxy.Lose, proxy.Terminate, proxy.Edit}, proxy.Wire...)
	rounds := 8
	if *soak > 0 {
		rounds = int(*soak / (2 * time.Second)) // more than fit: the clock ends it
	}
	var runs []plannedRun
	for i := range rounds {
		run := plannedRun{name: fmt.Sprintf("soak %d/%d", sown(), i+1), bad: r.IntN(2) == 0}
		for range 1 + r.IntN(3) {
			run.plans = append(run.plans, proxy.Plan{Mode: modes[r.IntN(len(modes))], At: 1 + r.IntN(60)})
		}
		runs = append(runs, run)
	}
	into := openResults(t, "soak")
	until := time.Now().Add(*soak - soaked(into, *lanes)) // a sweep that goes on does not begin it again
	t.Run("faults", func(t *testing.T) {
		if *soak == 0 {
			until = bounded()
		}
		driveUntil(t, s, runs, into, laneOptions{}, *lanes, until)
	})
	done := len(into.all)
	t.Logf("%d rounds; if none failed, the probability of a failure in such a round is below %.2f %% (95 %%, rule of three)", done, 300/float64(max(done, 1)))
	report(t, "soak", into)
}

// soaked is how long the lanes were at it already.
func soaked(into *results, lanes int) time.Duration {
	var sum time.Duration
	for _, r := range into.all {
		sum += r.Took
	}
	return sum / time.Duration(max(lanes, 1))
}

// TestAClockThatIsOff moves the clock of the daemon that takes over, by an hour and by ten years.
func TestAClockThatIsOff(t *testing.T) {
	besideOthers(t)
	s := newSite(t)
	for _, off := range []string{"1h", "-1h", "87600h", "-87600h"} {
		var runs []plannedRun
		for _, bad := range []bool{false, true} {
			for i := 1; i <= 64; i++ {
				runs = append(runs, plannedRun{name: fmt.Sprintf("clock %s bad=%t@%d", off, bad, i), bad: bad, plans: []proxy.Plan{{Mode: proxy.KillAfterApply, At: i}}})
			}
		}
		n := 1
		if *full {
			n = 10
		}
		into := openResults(t, "clock"+off)
		runs = sample(t, runs, n)
		if *full {
			for _, bad := range []bool{false, true} {
				for _, step := range headSteps(bad) {
					runs = append(runs, plannedRun{name: fmt.Sprintf("clock %s bad=%t at %s", off, bad, step), bad: bad, plans: []proxy.Plan{{Mode: proxy.KillAfterApply, Step: step, Name: "nexus-head"}}})
				}
			}
		}
		t.Run(off, func(t *testing.T) {
			drive(t, s, runs, into, laneOptions{later: []string{failpoint.ClockVariable + "=" + off}}, max(1, *lanes/2))
		})
		report(t, "clock off by "+off, into)
	}
}

// besideOthers lets tests that mostly wait run side by side, where they are run whole.
func besideOthers(t *testing.T) {
	if *full {
		t.Parallel()
	}
}

// TestTenMinutesWithoutAnAPIServer is the outage of the fault matrix in its real length.
func TestTenMinutesWithoutAnAPIServer(t *testing.T) {
	besideOthers(t)
	outage := 10 * time.Second
	if *full {
		outage = 10 * time.Minute
	}
	s := newSite(t)
	into := openResults(t, "outage")
	var runs []plannedRun
	for _, at := range []int{24, 40} {
		runs = append(runs, plannedRun{name: fmt.Sprintf("away for %s@%d", outage, at), plans: []proxy.Plan{{Mode: proxy.Away, At: at}}})
	}
	t.Run("faults", func(t *testing.T) { drive(t, s, runs, into, laneOptions{outage: outage}, len(runs)) })
	report(t, "outage", into)
}
