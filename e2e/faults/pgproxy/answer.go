package pgproxy

import (
	"io"
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
)

// answer passes on what the server says, until it ends the session.
func (s *session) answer() {
	for {
		if s.server.idle() {
			s.client.flush()
		}
		m, err := s.server.next()
		if err != nil {
			break
		}
		if f, whole := s.follow(m); f != nil {
			s.meet(f, m, whole)
		} else {
			s.server.pass(m, s.client)
		}
	}
	s.mu.Lock()
	f := s.faulted
	s.mu.Unlock()
	if f != nil { // the server ended before its answer did
		s.strike(f)
	}
	s.client.flush()
	s.client.hangUp()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over = true; s.doomed {
		s.settle()
	}
}

// follow writes down what the server says of the statements that it was asked. It returns the one that is to meet a fault if this belongs to
// its answer, and whether the answer is whole with it.
func (s *session) follow(m message) (f *asked, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var a *asked // which it is about
	if len(s.queue) > 0 && s.queue[0].statement != nil {
		a = s.queue[0]
	}
	if s.faulted != nil && (s.faulted == a || s.faulted.begun) {
		f = s.faulted
		f.begun = true
	}
	ours := a != nil && refuses(a.statement.Fault) // it answers what we asked in the statement's place
	switch m.kind {
	case 'C', 'I', 's': // CommandComplete, EmptyQueryResponse, PortalSuspended
		if m.kind == 'C' && a != nil && !ours {
			a.statement.Tag, _ = text(m.body())
		}
		if a != nil && !a.ends {
			whole = f == a && a.flushed
			s.latest, s.queue = a.statement, s.queue[1:]
		}
	case 'E': // ErrorResponse
		if s.code == "" && !ours {
			s.code = sqlstate(m)
		}
		whole = f != nil && f.flushed
	case 'G': // CopyInResponse
		if a != nil {
			a.copying = true
		}
	case 'K': // BackendKeyData
		s.key = string(m.body())
	case 'Z': // ReadyForQuery
		if s.ready() {
			f = s.faulted // it may have been skipped after an error
		}
		whole = f != nil
	}
	return f, whole
}

// sqlstate is the code of an ErrorResponse, which stands before what may be too long to be here.
func sqlstate(m message) string {
	var e pgproto3.ErrorResponse
	_ = e.Decode(m.body())
	return e.Code
}

// ready takes what ReadyForQuery answers from the queue, and reports that the statement that is to meet a fault is among it. If the server
// refused something, that is what it had not answered yet, or, where all was answered, the end of the last statement's transaction. mu is held.
func (s *session) ready() (faulted bool) {
	guilty := s.latest
	for i, first := 0, true; i < len(s.queue); i++ {
		a := s.queue[i]
		if a.statement != nil && first {
			guilty, first = a.statement, false
		}
		faulted = faulted || a == s.faulted
		if a.ends {
			s.queue = s.queue[i+1:]
			break
		}
	}
	if guilty != nil && s.code != "" {
		guilty.Code = s.code
	}
	s.latest, s.code = nil, ""
	return faulted && s.faulted != nil
}

// meet does to a message of an answer what is planned.
func (s *session) meet(f *asked, m message, whole bool) {
	switch mode := f.statement.Fault; {
	case m.kind == 'G': // CopyInResponse asks for what there is to answer to
		if mode == Hold {
			_, _ = s.client.Write(f.kept)
			f.kept = nil
		}
		s.server.pass(m, s.client)
	case mode == proxy.KillAfterAnswer:
		s.server.pass(m, s.client)
	case mode == Hold && (m.rest > 0 || len(f.kept)+len(m.head) > limit): // too much to be held, so it is from here on
		s.strike(f)
		s.server.pass(m, s.client)
		return
	case mode == Hold:
		f.kept = append(f.kept, m.head...)
	case refuses(mode) && m.kind == 'Z': // the server skipped it after an error, so that the client was told no already
		s.server.pass(m, s.client)
	case refuses(mode):
		whole = m.kind == 'C' || m.kind == 'E' // CommandComplete, ErrorResponse
		s.server.pass(m, io.Discard)
	default:
		if f.kept == nil {
			f.kept = slices.Clone(m.head[:len(m.head)/2])
		}
		s.server.pass(m, io.Discard)
	}
	if whole {
		s.strike(f)
	}
}

// strike does what is planned for when an answer is whole.
func (s *session) strike(f *asked) {
	s.mu.Lock()
	s.faulted = nil
	statement := *f.statement
	s.mu.Unlock()
	s.client.flush()
	switch mode := statement.Fault; {
	case mode == Hold:
		s.Meanwhile(mode, statement)
		_, _ = s.client.Write(f.kept)
	case mode == proxy.KillAfterApply, mode == proxy.KillAfterAnswer:
		s.Kill(statement)
	case mode == proxy.HalfClose:
		_, _ = s.client.Write(f.kept)
	case mode == proxy.Reset:
		s.client.reset()
	case refuses(mode) && (f.begun || breaks(mode)):
		_, _ = s.client.Write(refusal(mode))
	}
	if breaks(statement.Fault) {
		s.client.flush()
		s.sever()
	}
}
