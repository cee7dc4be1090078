package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
)

// report prints the figures of many runs, as docs/reliability.md has them.
func report(t *testing.T, what string, all []result) {
	t.Helper()
	var b strings.Builder
	modes := map[string][]result{}
	for _, r := range all {
		mode := string(r.Mode)
		if strings.Contains(r.Case, " failpoint ") {
			mode = "failpoint"
		}
		modes[mode] = append(modes[mode], r)
	}
	fmt.Fprintf(&b, "%s: %d runs\n\n| fault | done | as demanded | old | new | halted | recovery p50 | p95 | max |\n|---|---|---|---|---|---|---|---|---|\n", what, len(all))
	for _, mode := range ordered(modes) {
		rs := modes[mode]
		var done, right, old, new, halted int
		var recovery []time.Duration
		for _, r := range rs {
			if r.Fired == 0 {
				continue
			}
			done++
			if len(r.Violations) == 0 {
				right++
			}
			switch r.End {
			case "old":
				old++
			case "new":
				new++
			case "halted":
				halted++
			}
			recovery = append(recovery, r.Recovery)
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %s | %s | %s |\n", mode, done, right, old, new, halted,
			percentile(recovery, 50), percentile(recovery, 95), percentile(recovery, 100))
	}
	fmt.Fprintf(&b, "\nsteps that each fault was done to:\n")
	for _, mode := range ordered(modes) {
		steps := map[proxy.Step]int{}
		for _, r := range modes[mode] {
			if r.Fired > 0 {
				steps[r.Step]++
			}
		}
		fmt.Fprintf(&b, "  %-18s", mode)
		for _, s := range proxy.Steps {
			fmt.Fprintf(&b, " %s:%d", s, steps[s])
		}
		fmt.Fprintln(&b)
	}
	var starts []time.Duration
	for _, r := range all {
		if r.Start > 0 {
			starts = append(starts, r.Start)
		}
	}
	fmt.Fprintf(&b, "first write after the start of a process: p50 %s, p95 %s, max %s\n", percentile(starts, 50), percentile(starts, 95), percentile(starts, 100))
	t.Log(b.String())
}

func ordered(modes map[string][]result) []string {
	var names []string
	for _, m := range slices.Concat(proxy.Wire, proxy.Refusals, proxy.World) {
		if len(modes[string(m)]) > 0 {
			names = append(names, string(m))
		}
	}
	for m := range modes {
		if !slices.Contains(names, m) {
			names = append(names, m)
		}
	}
	slices.SortStableFunc(names[len(names)-min(len(names), 1):], strings.Compare)
	return names
}

// percentile of durations, rounded; 100 is the largest.
func percentile(of []time.Duration, p int) time.Duration {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[min(len(of)-1, len(of)*p/100)].Round(10 * time.Millisecond)
}
