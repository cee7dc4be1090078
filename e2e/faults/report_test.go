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
func report(t *testing.T, what string, all []result) {
	t.Helper()
	var b strings.Builder
	table(&b, all)
	times(&b, all)
	t.Logf("%s: %d runs\n\n%s", what, len(all), b.String())
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

// times compares what recovery takes with what a release takes on the same machine at the same time: each run is followed by one.
func times(w io.Writer, all []result) {
	var starts, recovery, releases []time.Duration
	for _, r := range all {
		if r.Start > 0 {
			starts = append(starts, r.Start)
		}
		if r.Start > 0 && r.Back > 0 {
			recovery, releases = append(recovery, r.Recovery), append(releases, r.Back)
		}
	}
	if len(releases) == 0 {
		return
	}
	fmt.Fprintf(w, "\nFirst write after the start of a process: p50 %s, p95 %s, max %s.\n", percentile(starts, 50), percentile(starts, 95), percentile(starts, 100))
	fmt.Fprintf(w, "From the start of a process to the outcome, against an undisturbed release beside it: p50 %s to %s, p95 %s to %s.\n",
		percentile(recovery, 50), percentile(releases, 50), percentile(recovery, 95), percentile(releases, 95))
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
