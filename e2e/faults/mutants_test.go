package faults

import (
	"fmt"
	"regexp"
	"slices"
	"testing"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/failpoint"
)

// hunts are the parts of the grid that should notice first that a rule is missing: where the faults hit, in a good or a bad release.
var hunts = map[failpoint.Rule]struct {
	bad  bool
	mode proxy.Mode
	step proxy.Step // of the write; empty: each write
	name string     // of what is written there
	all  bool       // it takes the whole release, not the small one
}{
	failpoint.JournalFirst:     {mode: proxy.KillAfterApply, step: proxy.S3},
	failpoint.HeadFirst:        {mode: proxy.None},
	failpoint.OneDecision:      {mode: proxy.DropBefore, step: proxy.S11},
	failpoint.Reread:           {mode: proxy.DropAnswer, step: proxy.S3},
	failpoint.CompareAndSwap:   {mode: proxy.Late, step: proxy.S3},
	failpoint.UIDPrecondition:  {mode: proxy.Delete, step: proxy.S5},
	failpoint.CreateOnly:       {mode: proxy.None},
	failpoint.Stamp:            {mode: proxy.KillAfterApply, step: proxy.S5, name: "new"},
	failpoint.Sweep:            {bad: true, mode: proxy.Late, step: proxy.S5, name: "new"},
	failpoint.MoveOn:           {mode: proxy.Withdraw, step: proxy.S5, name: "theirs", all: true},
	failpoint.DestroyLate:      {mode: proxy.None},
	failpoint.Quarantine:       {bad: true, mode: proxy.None},
	failpoint.TellAfterDurable: {mode: proxy.Unavailable, step: proxy.S13, name: "nexus-head"},
	failpoint.NoOlderHead:      {mode: proxy.LoseHead, step: proxy.S5, name: "web"},
	failpoint.HealthOfApplied:  {mode: proxy.Hold, step: proxy.S5, name: "web"},
}

// TestEveryRuleIsNoticedWhenItIsMissing runs daemons that leave out one rule of the protocol each, until a run shows it.
func TestEveryRuleIsNoticedWhenItIsMissing(t *testing.T) {
	s := newSite(t)
	rules := failpoint.Rules
	if !*full {
		n := 2
		if past(bounded()) { // a daemon without a rule may go on until a deadline
			n = 1
		}
		rules = sample(t, slices.Clone(rules), n)
	}
	rules = part(t, rules)
	into := openResults(t, "mutants")
	t.Run("rules", func(t *testing.T) {
		for _, rule := range rules {
			if into.done[string(rule)] || !regexp.MustCompile(*only).MatchString(string(rule)) {
				continue
			}
			t.Run(string(rule), func(t *testing.T) {
				t.Parallel()
				runs, violation := notice(t, s, rule)
				if violation == "" {
					t.Fatalf("%s: after %d runs nothing shows that it is missing", rule, runs)
				}
				t.Logf("%s: noticed in run %d: %s", rule, runs, violation)
				into.add(t, result{Case: string(rule), Fired: runs, End: "noticed", Write: violation})
			})
		}
	})
}

// notice looks for a run that shows that a rule is missing.
func notice(t *testing.T, s *site, rule failpoint.Rule) (runs int, violation string) {
	hunt, known := hunts[rule]
	if !known {
		t.Fatalf("no part of the grid is known to notice %s", rule)
	}
	l, err := newLane(t, s, laneOptions{small: !hunt.all && (hunt.step != "" || hunt.mode == proxy.None), env: []string{failpoint.MutantVariable + "=" + string(rule)}})
	if err != nil {
		return 0, err.Error()
	}
	for at := 1; at <= 64; at++ {
		plan := proxy.Plan{Mode: hunt.mode, At: at}
		if hunt.step != "" {
			plan = proxy.Plan{Mode: hunt.mode, Step: hunt.step, Name: hunt.name}
		}
		r := l.run(t.Context(), fmt.Sprintf("without %s@%d", rule, at), hunt.bad, plan)
		if len(r.Violations) > 0 {
			return at, fmt.Sprintf("%s at %s: %s", r.Mode, r.Step, r.Violations[0])
		}
		if (hunt.mode == proxy.None || hunt.step != "") && at == 3 {
			break
		}
	}
	return 64, ""
}
