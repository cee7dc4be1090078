package model

import (
	"errors"

	"time"

	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/reconcile"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// serve carries a request out as the API server or the database would. It says whether that was done; if not, why.
func (x *explorer) serve(s *state, r request) error {
	o := &s.objects[r.object]
	switch r.kind {
	case swap:
		if r.version != s.head.revision && !x.without.noCAS {
			return journal.ErrConflict
		}
		x.watchHead(s, r)
		revision := s.head.revision + 1
		s.head = r.head
		s.head.revision = revision
		return nil
	case fence:
		if r.epoch < s.fence {
			return journal.ErrConflict
		}
		s.fence = r.epoch
		return nil
	case up, down:
		if s.fence != r.epoch && !x.without.noFence {
			return journal.ErrConflict
		}
		s.schema = map[uint8]uint8{up: 1, down: 0}[r.kind]
		return nil
	}
	if s.head.state == idle && s.head.good == old && !s.head.bad && s.head.number == 1 {
		s.fault = 1
	}
	switch r.kind {
	case create:
		if o.says != absent && !x.without.createAnyway {
			return conflict
		}
		if o.says == absent {
			o.uid, o.stamp = o.uid+1, r.stamp
		}
		o.says, o.version = r.says, o.version+1
	case apply:
		switch {
		case x.without.noUID && o.says == absent:
			o.uid++
		case x.without.noUID:
		case o.says == absent || o.uid != r.uid || o.version != r.version:
			return conflict
		}
		o.says, o.version = r.says, o.version+1
	case remove:
		if o.says == absent || o.uid != r.uid || o.version != r.version {
			return conflict
		}
		if r.object == pruned && s.head.state != committed && s.head.good == old {
			s.fault = 2
		}
		*o = object{uid: o.uid}
	}
	return nil
}

// watchHead holds the history of the head to I1.
func (x *explorer) watchHead(s *state, r request) {
	from, to := s.head, r.head
	switch {
	case from.state == committed && to.state == aborting, from.state == aborting && to.state == committed:
		s.fault = 3
	case r.forced == 1 || journal.Legal(from.real(), to.real()) != nil:
		s.fault = 4
	case from.state == idle && to.state == prepared && from.number > 1:
		s.fault = 5
	}
}

// answer is what a process makes of the answer to its request.
func (x *explorer) answer(s *state, p *process, err error) {
	r := p.out
	p.out = request{}
	if err == nil {
		x.went(s, p, r)
		return
	}
	var unknown *journal.UnknownOutcomeError
	if r.kind == swap && r.head.state == committed && errors.As(err, &unknown) {
		if x.without.assumeCommitted {
			revision := p.head.revision
			p.head = r.head
			p.head.revision, p.owner = revision, r.head.epoch
			return
		}
	}
	switch reconcile.Judge(err) {
	case reconcile.Fail: // an object is not as it was: again if only its version moved, else undo
		if o := s.objects[r.object]; o.says == r.seen && o.uid == r.uid || r.kind == remove || p.head.state != prepared {
			p.knows = p.knows && p.head.state != idle
			return
		}
		p.out = x.swapTo(p.head, p.head.real().Abort(journal.Failure{Reason: "Conflict", Message: "changed by somebody"}))
	default: // protocol rule 3
		p.knows = false
	}
}

// went follows a request that was carried out.
func (x *explorer) went(s *state, p *process, r request) {
	if r.kind == swap {
		p.head, p.knows, p.owner = s.head, true, s.head.epoch
		if r.head.state != prepared && r.head.state != committed || p.head.state == idle {
			p.done = 0
		}
		if p.head.state == idle {
			x.remember(p, p.head.good)
		}
		return
	}
	all := forward
	if p.head.state == aborting {
		all = back
	}
	if p.head.state == idle {
		return
	}
	for i, o := range all {
		if o.object == r.object && (o.kind == r.kind || o.kind == create && r.kind == apply) && (r.kind != fence && r.kind != up && r.kind != down || o.kind == r.kind) {
			p.done |= 1 << i
		}
	}
}

// explorer walks through all reachable states.
type explorer struct {
	without rules
	index   map[state]int32
	all     []state
	calm    [][]int32 // steps without a fault
	from    []int32
	how     []string
}

func (x *explorer) add(s state, from int32, how string) int32 {
	if i, ok := x.index[s]; ok {
		return i
	}
	i := int32(len(x.all))
	x.index[s] = i
	x.all, x.calm, x.from, x.how = append(x.all, s), append(x.calm, nil), append(x.from, from), append(x.how, how)
	return i
}

// explore visits everything that can be reached, nearest first.
func (x *explorer) explore(limit int) (whole bool) {
	for i := int32(0); int(i) < len(x.all); i++ {
		if len(x.all) > limit {
			return false
		}
		x.expand(i)
	}
	return true
}

func (x *explorer) expand(i int32) {
	s := x.all[i]
	if s.fault != 0 {
		return
	}
	step := func(calm bool, how string, change func(*state)) {
		to := s
		change(&to)
		if to == s {
			return
		}
		j := x.add(to, i, how)
		if calm {
			x.calm[i] = append(x.calm[i], j)
		}
	}
	me := s.active
	name := "first: "
	if me == 1 {
		name = "second: "
	}
	if s.late.kind != nothing {
		step(true, "a late "+s.late.String()+" arrives", func(t *state) {
			r := t.late
			t.late = request{}
			_ = x.serve(t, r) // whoever sent it is not told
		})
	}
	out := s.processes[me].out
	if out.kind == nothing {
		step(true, name+"plans", func(t *state) { x.plan(t, &t.processes[me]) })
	} else {
		x.send(s, step, me, name, out)
	}
	if s.left.crashes > 0 {
		step(false, name+"dies and starts again", func(t *state) { t.left.crashes--; t.processes[me] = process{} })
	}
	if s.left.moves > 0 {
		step(false, "the other one leads", func(t *state) { t.left.moves--; t.active = 1 - t.active })
	}
	if s.left.withdrawals > 0 && s.head.state == prepared {
		step(false, "the commit is withdrawn", func(t *state) { t.left.withdrawals--; t.withdrawn = true })
	}
	if s.left.edits > 0 {
		step(false, "somebody edits a field of their own", func(t *state) { t.left.edits--; t.objects[changed].version++ })
		if o := s.objects[created]; o.says == absent {
			step(false, "somebody makes an object of that name", func(t *state) { t.left.edits--; t.objects[created] = object{says: foreign, uid: o.uid + 1} })
		}
	}
}

// send is what may become of a request.
func (x *explorer) send(s state, step func(bool, string, func(*state)), me uint8, name string, out request) {
	unknown := lostAnswer
	if out.kind == swap {
		unknown = lostHead
	}
	step(true, name+out.String(), func(t *state) { x.answer(t, &t.processes[me], x.serve(t, out)) })
	if x.without.versionApart && out.kind == up && s.left.losses > 0 { // DDL done, its version row not
		step(false, name+out.String()+" half", func(t *state) { t.left.losses--; t.schema = 2; t.processes[me] = process{} })
	}
	if s.left.losses > 0 {
		step(false, name+out.String()+", lost before it arrives", func(t *state) { t.left.losses--; x.answer(t, &t.processes[me], unknown) })
		step(false, name+out.String()+", done, its answer lost", func(t *state) {
			t.left.losses--
			if err := x.serve(t, out); err != nil {
				unknown = err
			}
			x.answer(t, &t.processes[me], unknown)
		})
	}
	if s.left.lates > 0 && s.late.kind == nothing {
		step(false, name+out.String()+", held back", func(t *state) { t.left.lates--; t.late = out; x.answer(t, &t.processes[me], unknown) })
	}
}

// lost are the states from which nothing leads to a settled one without a further fault, nearest first.
func (x *explorer) lost() []int32 {
	back := make([][]int32, len(x.all))
	for i, to := range x.calm {
		for _, j := range to {
			back[j] = append(back[j], int32(i))
		}
	}
	good := make([]bool, len(x.all))
	var queue []int32
	for i, s := range x.all {
		if s.settled() {
			good[i] = true
			queue = append(queue, int32(i))
		}
	}
	for len(queue) > 0 {
		i := queue[0]
		queue = queue[1:]
		for _, j := range back[i] {
			if !good[j] {
				good[j] = true
				queue = append(queue, j)
			}
		}
	}
	var lost []int32
	for i := range x.all {
		if !good[i] {
			lost = append(lost, int32(i))
		}
	}
	return lost
}

// story is how a state was reached, a line a step.
func (x *explorer) story(i int32) string {
	if i <= 0 {
		return ""
	}
	return x.story(x.from[i]) + "\n    " + x.how[i]
}

func (r request) String() string {
	names := []string{"nothing", "writes the head", "applies", "creates", "deletes", "fences", "migrates up", "migrates down"}
	switch r.kind {
	case swap:
		return names[swap] + " as " + string(states[r.head.state])
	case apply, create, remove:
		return names[r.kind] + " the " + []string{"changed", "created", "pruned", "adopted"}[r.object] + " object"
	}
	return names[r.kind]
}
