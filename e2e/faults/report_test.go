package faults

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
)

// report prints the figures of many runs.
func report(t *testing.T, what string, of *results) {
	t.Helper()
	var b strings.Builder
	table(&b, of.all)
	starts(&b, of.all)
	of.failedOnce(&b, what)
	t.Logf("%s: %d runs\n\n%s", what, len(of.all), b.String())
}

// table is how the runs ended, by what was done.
func table(w io.Writer, all []result) {
	modes := map[proxy.Mode][]result{}
	for _, r := range all {
		if r.Fired > 0 {
			modes[r.modeOf()] = append(modes[r.modeOf()], r)
		}
	}
	fmt.Fprintf(w, "| fault | done | as demanded | old | new | halted | recovery p50 | p95 | max |\n|---|---|---|---|---|---|---|---|---|\n")
	sum, right := 0, 0
	for _, mode := range ordered(modes) {
		rs := modes[mode]
		ends, good := map[string]int{}, 0
		var recovery []time.Duration
		for _, r := range rs {
			ends[r.End]++
			if len(r.Violations) == 0 {
				good++
			}
			recovery = append(recovery, r.Recovery)
		}
		sum, right = sum+len(rs), right+good
		fmt.Fprintf(w, "| %s | %d | %d | %d | %d | %d | %s | %s | %s |\n", mode, len(rs), good, ends["old"], ends["new"], ends["halted"],
			percentile(recovery, 50), percentile(recovery, 95), percentile(recovery, 100))
	}
	fmt.Fprintf(w, "| all | %d | %d | | | | | | |\n", sum, right)
}

// starts is how long a process takes from its start to its first write, on a machine that is busy with the other runs.
func starts(w io.Writer, all []result) {
	var first []time.Duration
	for _, r := range all {
		if r.Start > 0 {
			first = append(first, r.Start)
		}
	}
	if len(first) > 0 {
		fmt.Fprintf(w, "\nFrom the start of a process to its first write: p50 %s, p95 %s, max %s, with the other runs beside it.\n", percentile(first, 50), percentile(first, 95), percentile(first, 100))
	}
}

// startLimit is how long a process may take from its start to its first write, and how much longer than the whole release it may
// take to the outcome.
const startLimit = 3 * time.Second

// alone is how long a release takes that nothing disturbs, on a machine that does nothing else.
func alone(all []result) time.Duration {
	var releases []time.Duration
	for _, r := range all {
		if r.Fired == 0 && r.Mode == proxy.None {
			releases = append(releases, r.Release)
		}
	}
	return percentile(releases, 50)
}

// slow says in what a process that took over was slower than it may be.
func (r result) slow(alone time.Duration) []string {
	var all []string
	if r.Start > startLimit {
		all = append(all, fmt.Sprintf("the first write came %s after the start of the process, not within %s", r.Start, startLimit))
	}
	if limit := alone + startLimit; r.Recovery > limit {
		all = append(all, fmt.Sprintf("from the start of the process to the outcome it took %s: longer than a whole release (%s) and %s", r.Recovery, alone, startLimit))
	}
	return all
}

// beside compares recovery with a release that nothing disturbs.
func beside(w io.Writer, all []result) {
	var first, recovery []time.Duration
	within := 0
	release := alone(all)
	for _, r := range all {
		if r.Fired > 0 {
			first, recovery = append(first, r.Start), append(recovery, r.Recovery)
			if len(r.slow(release)) == 0 {
				within++
			}
		}
	}
	if release == 0 {
		return
	}
	ratio := func(d time.Duration) float64 { return float64(d) / float64(release) }
	fmt.Fprintf(w, "Alone on the machine, an undisturbed release takes %s (p50); %d kills:\n", release, len(recovery))
	fmt.Fprintf(w, "  from the start of a process to its first write: p50 %s, max %s; allowed %s\n", percentile(first, 50), percentile(first, 100), startLimit)
	fmt.Fprintf(w, "  from there to the outcome: p50 %s (%.2f × the release), max %s (%.2f ×); allowed the release and %s\n",
		percentile(recovery, 50), ratio(percentile(recovery, 50)), percentile(recovery, 100), ratio(percentile(recovery, 100)), startLimit)
	fmt.Fprintf(w, "  %d of %d within both\n", within, len(recovery))
}

func ordered(modes map[proxy.Mode][]result) []proxy.Mode {
	all := slices.Concat([]proxy.Mode{proxy.None, boundary}, proxy.Wire, proxy.Refusals, proxy.World)
	return slices.DeleteFunc(all, func(m proxy.Mode) bool { return len(modes[m]) == 0 })
}

// percentile of durations, rounded; 100 is the largest.
func percentile(of []time.Duration, p int) time.Duration {
	if len(of) == 0 {
		return 0
	}
	of = slices.Sorted(slices.Values(of))
	return of[min(len(of)-1, len(of)*p/100)].Round(10 * time.Millisecond)
}
