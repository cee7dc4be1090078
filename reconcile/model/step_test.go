package model

import (
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/reconcile"
)

// The states of a head, as numbers.
const (
	idle uint8 = iota
	prepared
	committed
	aborting
)

var states = []journal.State{journal.Idle, journal.Prepared, journal.Committed, journal.Aborting}

var commits = []string{old: "old", next: "next"}

// real is the head as the code knows it.
func (h head) real() journal.Head {
	r := journal.Head{
		Version: journal.Version, Environment: "env", State: states[h.state], Epoch: int64(h.epoch), Number: int64(h.number), Inventory: digest,
		Good: &journal.Mark{Release: map[uint8]int64{old: 1, next: int64(h.number)}[h.good], Commit: commits[h.good], Set: digest},
	}
	if h.bad {
		r.Bad = []journal.Bad{{Commit: "next", Release: 2}}
	}
	if h.state != idle {
		why := "Unhealthy"
		if h.superseded {
			why = superseded
		}
		r.Release = &journal.Release{Number: int64(h.number), Commit: "next", Kind: reconcile.KindDeploy, Epoch: int64(h.release), Set: digest, Plan: digest, Before: digest}
		if h.state == aborting {
			r.Release.Failure = &journal.Failure{Reason: why, Message: "it crashes"}
		}
	}
	return r
}

const superseded = "Superseded"

const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// model is a real head in the model.
func model(r journal.Head, revision uint8) head {
	h := head{epoch: uint8(r.Epoch), number: uint8(r.Number), revision: revision, good: old, bad: r.Quarantined("next")}
	for i, s := range states {
		if s == r.State {
			h.state = uint8(i)
		}
	}
	if r.Good.Commit == "next" {
		h.good = next
	}
	if r.Release != nil {
		h.release = uint8(r.Release.Epoch)
		h.superseded = r.Release.Failure != nil && r.Release.Failure.Reason == superseded
	}
	return h
}

// operations of an open release, in order: those that go forward, and those that take it back (reconcile.execute and undo).
var forward = []request{{kind: apply, object: changed, says: next}, {kind: fence}, {kind: up}, {kind: create, object: created, says: next}, {kind: apply, object: adopted, says: next}}
var back = []request{{kind: apply, object: adopted, says: foreign}, {kind: fence}, {kind: down}, {kind: apply, object: changed, says: old}, {kind: remove, object: created}}

// plan is the one next thing that a process would do: it reads the head if it has to, and the object that it is about to write.
func (x *explorer) plan(s *state, p *process) {
	if !p.knows { // reconcile.read
		p.head, p.knows = s.head, true
	}
	if p.head.state != idle && p.owner != p.head.epoch { // reconcile.takeOver
		p.done = 0
		p.out = x.swapTo(p.head, p.head.real().TakeOver())
		return
	}
	tip := "next"
	if s.withdrawn && p.head.good == old {
		tip = "old"
	}
	step := reconcile.Next(p.head.real(), reconcile.Sight{Tip: tip})
	switch step.Verb {
	case reconcile.Deploy: // reconcile.begin
		if s.objects[created].says == foreign { // refused: it is somebody else's
			p.knows = false
			return
		}
		p.done = 0
		x.remember(p, p.head.good)
		p.out = x.swapTo(p.head, p.head.real().Prepare(journal.Release{Number: int64(p.head.number) + 1, Commit: "next", Kind: reconcile.KindDeploy, Set: digest, Plan: digest, Before: digest}, digest, nil))
	case reconcile.Resume: // reconcile.resume, execute, decide
		if s.withdrawn {
			p.out = x.swapTo(p.head, p.head.real().Abort(journal.Failure{Reason: superseded, Message: "a newer commit takes its place"}))
			return
		}
		if x.operation(s, p, forward) {
			return
		}
		switch {
		case x.without.pruneFirst && s.objects[pruned].says != absent:
			p.out = removal(s, pruned)
		case s.broken:
			p.out = x.swapTo(p.head, p.head.real().Abort(journal.Failure{Reason: "Unhealthy", Message: "it crashes"}))
		default:
			p.out = x.swapTo(p.head, p.head.real().Commit())
		}
	case reconcile.Finish: // reconcile.finish
		if x.operation(s, p, []request{forward[0], {}, {}, forward[3], forward[4]}) {
			return
		}
		if o := s.objects[pruned]; o.says != absent {
			p.out = removal(s, pruned)
			return
		}
		p.out = x.swapTo(p.head, p.head.real().Done(journal.Mark{Release: int64(p.head.number), Commit: "next", Set: digest}, "done", digest, noon, noon))
	case reconcile.Undo: // reconcile.undo
		if x.operation(s, p, back) {
			return
		}
		p.out = x.swapTo(p.head, p.head.real().Undone(journal.Outcome{Outcome: "Reverted", Reason: "Unhealthy"}, digest, !x.without.noQuarantine && !p.head.superseded))
	default:
		x.repair(s, p)
	}
}

// operation plans the first one that the process has not done yet.
func (x *explorer) operation(s *state, p *process, all []request) bool {
	for i, r := range all {
		if r.kind == nothing || p.done&(1<<i) != 0 {
			continue
		}
		o := s.objects[r.object]
		if r.object == adopted && s.head.epoch != p.head.epoch && !x.without.adoptUnseen { // reconcile.mine
			p.knows = false
			return true
		}
		r.uid, r.version, r.seen, r.stamp, r.epoch = o.uid, o.version, o.says, p.head.release, p.head.epoch
		switch {
		case r.kind == apply && o.says == absent: // somebody deleted it: drift, once the release has ended
			p.done |= 1 << i
			continue
		case r.says == foreign && o.says == foreign && !x.without.noMoveOn: // kube.Restore, moveOn
		case r.kind == apply && o.says == r.says, r.kind == remove && (o.says == absent || o.stamp != p.head.release):
			p.done |= 1 << i
			continue
		case r.kind == create && o.says != absent: // reconcile.create: its own, or a late one of an older release
			if o.says == foreign {
				p.out = x.swapTo(p.head, p.head.real().Abort(journal.Failure{Reason: "Exists", Message: "somebody made it"}))
				return true
			}
			r.kind = apply
			if o.says == r.says && o.stamp == p.head.release {
				p.done |= 1 << i
				continue
			}
		}
		p.out = r
		return true
	}
	return false
}

func removal(s *state, which uint8) request {
	o := s.objects[which]
	return request{kind: remove, object: which, uid: o.uid, version: o.version, seen: o.says}
}

// repair brings the first object that is not what the last good release declares back, and sweeps what came late (reconcile.repair).
func (x *explorer) repair(s *state, p *process) {
	world := p.head.good
	if x.without.memory && p.mind != 0 {
		world = p.mind
	}
	x.remember(p, world)
	want := [objects]uint8{changed: old, pruned: old, adopted: foreign}
	if world == next {
		want = [objects]uint8{changed: next, created: next, adopted: next}
	}
	for i, o := range s.objects {
		r := request{object: uint8(i), says: want[i], uid: o.uid, version: o.version, seen: o.says, stamp: p.head.epoch}
		switch {
		case o.says == want[i]:
			continue
		case want[i] == absent && o.says == foreign:
			continue
		case want[i] == absent && (x.without.noSweep || o.stamp == 0 || o.stamp > p.head.epoch): // nothing says that it was ours
			continue
		case want[i] == absent:
			r.kind = remove
		case want[i] == foreign: // not in the inventory
			continue
		case o.says == absent:
			r.kind = create
		default:
			r.kind = apply
		}
		if s.head.epoch != p.head.epoch { // reconcile.stillHead
			p.knows = false
			return
		}
		p.out = r
		return
	}
	p.knows = false // at rest: the next pass looks again
}

// remember is what a mutant does that decides from memory.
func (x *explorer) remember(p *process, world uint8) {
	if x.without.memory {
		p.mind = world
	}
}

func (x *explorer) swapTo(from head, to journal.Head) request {
	legal := journal.Legal(from.real(), to) == nil
	r := request{kind: swap, version: from.revision, head: model(to, 0)}
	if !legal {
		r.forced = 1
	}
	return r
}

// errors as the leaves return them, for reconcile.Judge.
var (
	lostHead   error = &journal.UnknownOutcomeError{}
	lostAnswer error = &kube.LostAnswerError{}
	conflict   error = &kube.ConflictError{}
)
