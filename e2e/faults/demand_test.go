package faults

import (
	"slices"
	"testing"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
)

// A hit is one fault of a run, as far as the fault matrix asks.
type hit struct {
	mode proxy.Mode
	step proxy.Step
	made bool // the write was done all the same, whatever its sender heard of it
}

// hits are the faults of a run, in their order.
func (l *lane) hits(r *result) []hit {
	if l.boundary != "" && r.Fired > 0 {
		return []hit{{mode: boundary, step: r.Step, made: after(l.boundary)}}
	}
	var all []hit
	for _, w := range l.proxy.Fired() {
		all = append(all, hit{mode: w.Fault, step: w.Step, made: w.Fault.Reaches() && w.Applied && !w.Late})
	}
	return all
}

// checkEnd compares how a run ended with what the fault matrix of the protocol demands.
func (l *lane) checkEnd(r *result) {
	allowed := undisturbed(r.Bad)
	switch {
	case l.withdrawn: // whichever of the two was released last says what was there before
		allowed = []string{"old"}
	case l.newer != "": // it is good, and queues, or takes the place of the first
		allowed = []string{"new"}
	case r.Fired > 0:
		allowed = demandedOfAll(l.hits(r), r.Bad)
	}
	if !slices.Contains(allowed, r.End) {
		l.violate("matrix: %s at %s (%d faults) ended as %s; allowed: %v", r.modeOf(), r.Step, r.Fired, r.End, allowed)
	}
}

// undisturbed is how a release ends that nothing happens to.
func undisturbed(bad bool) []string {
	if bad {
		return []string{"old"}
	}
	return []string{"new"}
}

// demandedOfAll is how a release may end after several faults: as after any of them, but none takes a decision back.
func demandedOfAll(hits []hit, bad bool) []string {
	var allowed []string
	for _, one := range hits {
		d := demanded(one, bad)
		if !bad && one.decided() && one.step != proxy.Rest && one.step != proxy.Repair { // these may lie before the release
			return d
		}
		allowed = append(allowed, d...)
	}
	return allowed
}

// decided reports that the release cannot be undone any more after this fault.
func (h hit) decided() bool {
	return h.step == proxy.S11 && h.made || slices.Contains([]proxy.Step{proxy.S12, proxy.S13, proxy.Rest, proxy.Repair}, h.step)
}

// demanded is the fault matrix of the protocol. Where it says "old" of a step before the head is prepared, it speaks of that attempt:
// the commit is still the tip and nothing was learned of it, so it is tried again, and a good one ends as new.
func demanded(h hit, bad bool) []string {
	o, n, e := []string{"old"}, []string{"new"}, []string{"old", "new"}
	switch h.mode {
	case proxy.LoseHead:
		return withoutHead(h.step, bad)
	case proxy.LoseBundle:
		return withoutBundle(h, bad)
	case proxy.Delete: // of what is undone, or brought, and is not what was planned any more
		if !bad && (h.step == proxy.S5 || h.step == proxy.S7) {
			return append(e, "halted")
		}
	}
	switch {
	case bad:
		return o
	case h.decided():
		return n
	}
	switch h.step {
	case proxy.S1:
		if !aside(h.mode) {
			return n // also where it is refused: that a bundle was says nothing of the commit
		}
	case proxy.S2:
		switch {
		case slices.Contains(proxy.Refusals, h.mode):
			return o
		case !aside(h.mode):
			return n
		}
	case proxy.S5:
		if slices.Contains(proxy.Refusals, h.mode) {
			return o
		}
	}
	return e
}

// aside reports that a mode changes something, or hides it, beside the write that it happens at: what comes after may fail by it.
func aside(mode proxy.Mode) bool {
	return slices.Contains([]proxy.Mode{proxy.Edit, proxy.Delete, proxy.LoseNamespace, proxy.Hold, proxy.Lose, proxy.Stop}, mode)
}

// withoutHead is the row of the deleted head.
func withoutHead(step proxy.Step, bad bool) []string {
	switch step {
	case proxy.S1, proxy.S2, proxy.S3: // rebuilt, if the plan of the release is not stored yet
		return append(undisturbed(bad), "halted")
	case proxy.S5, proxy.S7, proxy.S11: // a release is open: nobody but a person knows how far it is
		return []string{"halted"}
	case proxy.S12, proxy.R1, proxy.R2, proxy.R3: // the same, unless the spare is written before anybody asks for the head
		return append(undisturbed(bad), "halted")
	}
	return undisturbed(bad) // rebuilt
}

// withoutBundle is the row of the deleted bundle.
func withoutBundle(h hit, bad bool) []string {
	switch {
	case bad:
		return []string{"old", "halted"}
	case h.decided() || h.step == proxy.S11: // the matrix allows nothing else: all that is needed from there on is in the new set
		return []string{"new"}
	}
	return []string{"old", "new", "halted"}
}

func TestTheMatrixDemands(t *testing.T) {
	for name, c := range map[string]struct {
		hits []hit
		bad  bool
		want []string
	}{
		"a decision that was made is not taken back":         {hits: []hit{{proxy.HalfClose, proxy.S11, true}}, want: []string{"new"}},
		"one that was not made may be either":                {hits: []hit{{proxy.DropBefore, proxy.S11, false}}, want: []string{"old", "new"}},
		"a head that is lost before a prune: halted, or new": {hits: []hit{{proxy.LoseHead, proxy.S12, true}}, want: []string{"new", "halted"}},
		"a head that is lost at the end is rebuilt":          {hits: []hit{{proxy.LoseHead, proxy.S13, true}}, want: []string{"new"}},
		"a head that is lost during an undo":                 {hits: []hit{{proxy.LoseHead, proxy.R2, true}}, bad: true, want: []string{"old", "halted"}},
		"what is tried again ends as if nothing was":         {hits: []hit{{proxy.Unavailable, proxy.S2, false}}, want: []string{"new"}},
		"what is refused stays as it was":                    {hits: []hit{{proxy.Denied, proxy.S5, false}}, want: []string{"old"}},
		"a second fault after the decision changes nothing":  {hits: []hit{{proxy.KillAfterApply, proxy.S5, true}, {proxy.DropAnswer, proxy.S13, true}}, want: []string{"new"}},
		"a bad release ends as old":                          {hits: []hit{{proxy.Edit, proxy.R1, true}}, bad: true, want: []string{"old"}},
	} {
		if got := demandedOfAll(c.hits, c.bad); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
