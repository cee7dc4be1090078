package pgproxy

import (
	"io"
	"slices"
	"sync"
	"time"
)

// session is a client's connection to the server. One goroutine reads what the client says, one what the server says.
type session struct {
	*Proxy
	client, server *end
	database, by   string
	names          names // known to the client's goroutine alone
	last           bool  // a fault ends the session and all that it is about was sent; known to the client's goroutine alone

	// Below mu of the proxy.
	queue   []*asked   // what the server was asked and has not answered yet, in order
	latest  *Statement // the last that it answered since ReadyForQuery
	code    string     // with which it refused something since ReadyForQuery
	faulted *asked     // its answer is to meet a fault
	doomed  bool       // the session will end: Settle waits for that
	severed bool       // nothing passes any more
	over    bool       // the server has ended it
	key     string     // with which a CancelRequest names it
}

// asked is something that the server answers.
type asked struct {
	statement *Statement // nil: a Sync, or the start of the session
	ends      bool       // it is answered by ReadyForQuery, with all before it
	copying   bool       // it waits for data to copy
	flushed   bool       // its answer has been asked for by Flush: there may be no ReadyForQuery
	begun     bool       // its answer has begun, so that a fault is done to whatever comes
	kept      []byte     // of an answer that is held or cut
}

// converse is a session from its start on.
func (p *Proxy) converse(client, server *end, parameters map[string]string) {
	s := &session{
		Proxy: p, client: client, server: server, database: parameters["database"], by: parameters["application_name"],
		names: names{prepared: map[string]string{}, portals: map[string]string{}}, queue: []*asked{{ends: true}},
	}
	p.mu.Lock()
	p.sessions[s] = struct{}{}
	away := p.away > 0
	p.mu.Unlock()
	if away { // since it was let in
		s.sever()
	}
	var both sync.WaitGroup
	both.Go(s.listen)
	both.Go(s.answer)
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, s)
}

// listen passes on what the client says, until it or a fault ends that.
func (s *session) listen() {
	defer s.client.Close()
	for {
		if s.client.idle() {
			s.server.flush()
		}
		m, err := s.client.next()
		if err != nil { // it is gone: the server hears of that as it would without us
			s.doom()
			s.server.flush()
			s.server.hangUp()
			return
		}
		if !s.ask(m) {
			break
		}
	}
	_, _ = io.Copy(io.Discard, s.client.in) // a client in the middle of a message is to see an end, not a reset
}

// ask passes a message on to the server, or does what is planned. It reports whether more may come.
func (s *session) ask(m message) bool {
	switch m.kind {
	case 'd', 'c', 'f': // CopyData, CopyDone, CopyFail
		if m.kind != 'd' {
			s.copied()
		}
	case 'H': // Flush
		s.flushing()
	case 'S': // Sync
		s.synced()
	default:
		if s.last {
			s.server.flush()
			return false
		}
		s.names.learn(m)
	}
	switch m.kind {
	case 'Q', 'E', 'F': // Query, Execute, FunctionCall
		return s.carry(m)
	}
	s.client.pass(m, s.server)
	if m.kind == 'S' {
		s.ended()
	}
	return true
}

// carry numbers a statement and passes it on, with its fault if it is the planned one.
func (s *session) carry(m message) bool {
	a := s.number(m)
	if a == nil {
		return false
	}
	switch mode := a.statement.Fault; {
	case slices.Contains(before, mode):
		s.instead(a, m)
		return false
	case refuses(mode):
		return s.refuse(a, m)
	}
	s.enqueue(a)
	s.client.pass(m, s.server)
	if a.ends {
		s.ended()
	}
	return true
}

// number writes a statement down. It is nil if nothing passes any more.
func (s *session) number(m message) *asked {
	a := &asked{
		ends:      m.kind != 'E',
		statement: &Statement{At: time.Now(), Database: s.database, By: s.by, Text: s.names.text(m)},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.severed || s.over {
		return nil
	}
	s.statements = append(s.statements, a.statement)
	if s.doomed {
		return a
	}
	s.n++
	a.statement.N = s.n
	if s.faulted != nil || len(s.plans) == 0 || !s.plans[0].hits(a.statement) {
		return a
	}
	mode := s.plans[0].Mode
	a.statement.Fault, s.fired, s.plans, s.n = mode, append(s.fired, a.statement), s.plans[1:], 0
	if !slices.Contains(before, mode) {
		s.faulted = a
	}
	if breaks(mode) {
		s.doomed = true
		s.pending++
	}
	return a
}

// doom makes Settle wait for the end of the session.
func (s *session) doom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.doomed && !s.over {
		s.doomed = true
		s.pending++
	}
}

// sever breaks both connections.
func (s *session) sever() {
	s.doom()
	s.mu.Lock()
	s.severed = true
	s.mu.Unlock()
	s.client.hangUp()
	s.server.hangUp()
}

func (s *session) enqueue(a *asked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, a)
}

// ended notes that all has been sent that is answered up to the next ReadyForQuery.
func (s *session) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = s.doomed
}

// synced notes that the server is to answer all so far.
func (s *session) synced() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.queue {
		a.flushed = false
	}
	s.queue = append(s.queue, &asked{ends: true})
}

// flushing notes that the client asks for answers before it sends Sync.
func (s *session) flushing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.queue) - 1; i >= 0 && !s.queue[i].ends; i-- {
		s.queue[i].flushed = true
	}
}

// copied forgets each Sync that the server has overlooked while it copied, as libpq sends one too many.
func (s *session) copied() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 0 && s.queue[0].copying {
		s.queue = s.queue[:1]
	}
}
