package model

import (
	"flag"
	"testing"
)

var deep = flag.Bool("deep", false, "with larger budgets: some minutes, some GiB")

func run(t *testing.T, without rules, broken bool, b budget, limit int) (*explorer, []int32) {
	t.Helper()
	x := &explorer{without: without, index: map[state]int32{}}
	x.add(start(broken, b), -1, "")
	if !x.explore(limit) {
		t.Fatalf("more than %d states: smaller budgets are needed", limit)
	}
	return x, x.lost()
}

// TestNoHistoryEndsMixedOrStuck explores everything that can happen within the budgets.
func TestNoHistoryEndsMixedOrStuck(t *testing.T) {
	budgets := []budget{
		{crashes: 1, losses: 1, lates: 1, moves: 1}, {losses: 1, lates: 1, moves: 2}, {crashes: 1, lates: 1, moves: 1, edits: 1, withdrawals: 1},
		{crashes: 2, losses: 1, moves: 1, edits: 1},
	}
	if *deep {
		budgets = append(budgets, budget{crashes: 1, losses: 1, lates: 1, moves: 1, withdrawals: 1}, budget{losses: 1, lates: 1, moves: 2, edits: 1, withdrawals: 1}, budget{crashes: 2, losses: 2, lates: 1, moves: 1})
	}
	for _, broken := range []bool{false, true} {
		for _, b := range budgets {
			x, lost := run(t, rules{}, broken, b, 30_000_000)
			ends := map[string]int{}
			steps := 0
			for i, s := range x.all {
				steps += len(x.calm[i])
				if s.settled() {
					ends[commits[s.head.good]]++
				}
			}
			t.Logf("bad commit: %t, %+v: %d states, %d steps without a fault, end states: %v; mixed or stuck: %d", broken, b, len(x.all), steps, ends, len(lost))
			if len(lost) > 0 {
				s := x.all[lost[0]]
				t.Fatalf("nothing leads back from here: %s\n    %s\n    %+v", x.story(lost[0]), violations[s.fault], s)
			}
		}
	}
}

// TestEachRuleIsNeeded leaves one rule of the protocol out, and finds a history that goes wrong.
func TestEachRuleIsNeeded(t *testing.T) {
	budgets := []budget{{losses: 1, edits: 1}, {lates: 1, moves: 1}, {lates: 1, moves: 1, withdrawals: 1}, {losses: 1, moves: 2}, {losses: 1, lates: 1, moves: 2}}
	for name, without := range map[string]rules{
		"no compare-and-swap on the head":             {noCAS: true},
		"no precondition on updates":                  {noUID: true},
		"a create that changes what is there":         {createAnyway: true},
		"an adoption does not look at the head":       {adoptUnseen: true},
		"what is given back is not moved on":          {noMoveOn: true},
		"late creates are not swept":                  {noSweep: true},
		"prune before the decision":                   {pruneFirst: true},
		"a lost decision is taken for made":           {assumeCommitted: true},
		"the version row in a transaction of its own": {versionApart: true},
		"no fence in the database":                    {noFence: true},
		"what failed is not remembered":               {noQuarantine: true},
		"the last good world is remembered, not read": {memory: true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, b := range budgets {
				for _, broken := range []bool{true, false} {
					x, lost := run(t, without, broken, b, 30_000_000)
					if len(lost) > 0 {
						t.Logf("bad commit: %t, %+v: %d of %d states lead nowhere, the nearest:%s", broken, b, len(lost), len(x.all), x.story(lost[0]))
						return
					}
				}
			}
			t.Error("nothing goes wrong without it: the model does not see what it is for")
		})
	}
}
