package faults

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
)

// TestRecoveryBesideARelease kills the daemon at writes all over a release, on a machine that does nothing else, and compares what
// the next process takes, from its start to the outcome, with the whole release when nothing disturbs it. Its one daemon waits for
// no Lease. A full sweep insists on the bounds; a sample may share its machine with the tests of other packages, and only tells.
func TestRecoveryBesideARelease(t *testing.T) {
	l, err := newLane(t, newSite(t), laneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	into := openResults(t, "recovery")
	releases, step := 1, 30
	if *full {
		releases, step = 5, 5
	}
	do := func(name string, plans ...proxy.Plan) {
		if into.done[name] {
			return
		}
		r := l.run(t.Context(), name, false, plans...)
		slow := r.slow(alone(into.all))
		if *full && r.Fired > 0 {
			r.Violations = append(r.Violations, slow...)
		} else if r.Fired > 0 && len(slow) > 0 {
			t.Logf("%s: %s", name, strings.Join(slow, "; "))
		}
		if len(r.Violations) > 0 {
			t.Errorf("%s\n%s", r, l.evidence())
		}
		into.add(t, r)
	}
	for i := range releases {
		do(fmt.Sprintf("undisturbed %d", i+1))
	}
	var kills []int
	for at := 2; at < 54; at += step {
		kills = append(kills, at)
	}
	for _, at := range part(t, kills) {
		do(fmt.Sprintf("killed@%d", at), proxy.Plan{Mode: proxy.KillAfterApply, At: at})
	}
	var b strings.Builder
	beside(&b, into.all)
	t.Log(b.String())
}
