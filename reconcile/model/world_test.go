// Package model explores every interleaving of two reconcilers in a small world, within budgets of faults. What decides is the code
// itself: reconcile.Next, reconcile.Judge, the transitions of journal.Head and journal.Legal; what it acts on is modelled here.
package model

// The objects of the world.
const (
	changed = iota // in the old and the new set
	created        // in the new one only
	pruned         // in the old one only
	adopted        // somebody else's, in the new one
	objects
)

// What an object says.
const (
	absent uint8 = iota
	old
	next
	foreign
)

// object as the API server has it.
type object struct{ says, uid, version, stamp uint8 }

// head is a journal.Head, as far as the model needs it.
type head struct {
	state                        uint8 // of states
	epoch, number, good, release uint8 // good: old or next; release: epoch at which the open one began
	bad                          bool  // the new commit is quarantined
	superseded                   bool  // the open release is undone because its commit was withdrawn
	revision                     uint8 // of its Secret
}

// The kinds of requests.
const (
	nothing uint8 = iota
	swap
	apply
	create
	remove
	fence
	up
	down
)

// request is a write on its way to the API server or the database.
type request struct {
	kind, object         uint8
	says, uid, version   uint8 // for apply and remove: the preconditions
	stamp, epoch, forced uint8
	seen                 uint8 // what the object said when it was read
	head                 head
}

// process is a reconciler.
type process struct {
	knows bool  // it has read the head
	head  head  // as it knows it
	owner uint8 // epoch that it wrote last: the open release is its own if the head has that
	done  uint8 // operations of the open release that it has done, as bits
	mind  uint8 // the world that it has in mind: the last good one, when it was read; 0: none
	out   request
}

// budget bounds the faults of a history.
type budget struct{ crashes, losses, lates, moves, edits, withdrawals uint8 }

// state is the whole world. It is comparable: two equal ones are one.
type state struct {
	head      head
	objects   [objects]object
	schema    uint8 // 0: old, 1: new
	fence     uint8
	processes [2]process
	active    uint8 // the process that runs; the other is stopped in the middle of whatever it does
	late      request
	left      budget
	broken    bool  // the new commit is not healthy
	withdrawn bool  // the branch went back to the old commit
	fault     uint8 // of an invariant, in violations; 0: none
}

var violations = []string{"", "an object was written before the release was prepared", "something was pruned before the decision",
	"a release was both decided and undone", "the head made a step that is not legal",
	"what failed here was released again"}

// rules that a mutant leaves out.
type rules struct {
	noCAS, noUID, createAnyway, noSweep, pruneFirst, assumeCommitted, versionApart, noFence, noQuarantine, memory, adoptUnseen, noMoveOn bool
}

func start(broken bool, b budget) state {
	s := state{left: b, broken: broken}
	s.head = head{epoch: 1, number: 1, good: old, revision: 1}
	s.objects = [objects]object{changed: {old, 1, 1, 1}, pruned: {old, 1, 1, 1}, adopted: {foreign, 1, 1, 0}}
	return s
}

// golden says whether objects and schema are exactly what the head's last good release declares (I2).
func (s state) golden() bool {
	o := s.objects
	if s.head.good == next {
		return o[changed].says == next && o[changed].uid == 1 && o[created].says == next && o[pruned].says == absent &&
			o[adopted].says == next && o[adopted].uid == 1 && s.schema == 1
	}
	return o[changed].says == old && o[changed].uid == 1 && (o[created].says == absent || o[created].says == foreign) && o[pruned].says == old && o[pruned].uid == 1 &&
		o[adopted].says == foreign && o[adopted].uid == 1 && s.schema == 0
}

// settled: no release is open, nothing is on its way, and nothing is left to be released.
func (s state) settled() bool {
	decided := s.head.good == next || s.head.bad || s.withdrawn || s.objects[created].says == foreign
	return s.head.state == idle && s.late.kind == nothing && s.golden() && decided && s.fault == 0
}
