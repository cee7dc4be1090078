package faults

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/journal"
)

// stepOf is the step of the protocol at which a failpoint killed the daemon that the next one, started then, took the place of.
func (l *lane) stepOf(boundary string, started time.Time) proxy.Step {
	name, _, _ := strings.Cut(boundary, "=")
	return stepAt(failpoint.Name(name), l.begun.State, l.proxy.Writes(), started)
}

// stepAt tells it from what passed the proxy: a boundary around the head lies at as many steps as the head has transitions.
func stepAt(name failpoint.Name, state journal.State, writes []proxy.Write, started time.Time) proxy.Step {
	last := proxy.Step("")
	for _, w := range writes {
		if w.Head != nil && w.Applied && w.At.Before(started) {
			state, last = w.Head.State, w.Step
		}
	}
	switch name {
	case failpoint.SwapAfter:
		return last
	case failpoint.SwapBefore, failpoint.SpareBefore, failpoint.StoreBefore:
		idle := map[failpoint.Name]proxy.Step{failpoint.SwapBefore: proxy.S3, failpoint.SpareBefore: proxy.Rest, failpoint.StoreBefore: proxy.S1}
		return map[journal.State]proxy.Step{ // from prepared it may be S11 or R1 too, which have boundaries of their own
			"": idle[name], journal.Idle: idle[name], journal.Prepared: proxy.S7, journal.Committed: proxy.S13, journal.Aborting: proxy.R3,
		}[state]
	}
	for _, step := range proxy.Steps {
		if slices.Contains(failpoint.Steps[string(step)], name) {
			return step
		}
	}
	return proxy.Rest
}

// after reports that a boundary lies behind a write that was answered.
func after(boundary string) bool {
	name, _, _ := strings.Cut(boundary, "=")
	return slices.Contains([]failpoint.Name{failpoint.SwapAfter, failpoint.CommitAfter}, failpoint.Name(name))
}

func TestABoundaryOfTheHeadLiesAtTheStepOfTheKill(t *testing.T) {
	kill := time.Now()
	var writes []proxy.Write
	for _, w := range []struct {
		step  proxy.Step
		state journal.State
	}{{proxy.S3, journal.Prepared}, {proxy.S7, journal.Prepared}, {proxy.S11, journal.Committed}, {proxy.S13, journal.Idle}} {
		at := kill.Add(time.Duration(len(writes)-2) * time.Second) // the last one comes from the next process
		if w.step == proxy.S11 {
			at = at.Add(-time.Millisecond)
		}
		writes = append(writes, proxy.Write{Step: w.step, Applied: true, At: at, Head: &journal.Head{State: w.state}})
	}
	for n, want := range map[int]map[failpoint.Name]proxy.Step{
		0: {failpoint.SwapBefore: proxy.S3, failpoint.ApplyBefore: proxy.S5, failpoint.StoreBefore: proxy.S1},
		1: {failpoint.SwapAfter: proxy.S3, failpoint.SwapBefore: proxy.S7},
		2: {failpoint.SwapAfter: proxy.S7, failpoint.SwapBefore: proxy.S7},
		3: {failpoint.SwapAfter: proxy.S11, failpoint.SwapBefore: proxy.S13, failpoint.SpareBefore: proxy.S13, failpoint.StoreBefore: proxy.S13},
		4: {failpoint.SwapAfter: proxy.S11},
	} {
		for name, step := range want {
			if got := stepAt(name, journal.Idle, writes[:n], kill); got != step {
				t.Errorf("%s after %d writes of the head: %s, want %s", name, n, got, step)
			}
		}
	}
}
