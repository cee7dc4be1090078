package pgproxy

import (
	"io"
	"regexp"
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
)

// Mode is what is done to a statement. Those of the proxy before the API server mean the same here, with the server for the API server.
type Mode = proxy.Mode

// The modes that only a database knows. Those that are a SQLSTATE are answers that say no: the server never hears of the statement.
const (
	Hold       Mode = "hold"  // the server does it, and the end of the answer is held for a while
	Terminated Mode = "57P01" // an administrator, or a failover, ends the session
	Serialize  Mode = "40001" // another transaction was faster; the transaction has failed
	Locked     Mode = "55P03" // a lock was not to be had in time; the transaction has failed
	TooMany    Mode = "53300" // there are too many sessions; this one ends
)

// Modes are all that can be done to a statement.
var Modes = slices.Concat(before, after, []Mode{Terminated, Serialize, Locked, TooMany})

// before are done in place of the statement.
var before = []Mode{proxy.KillBefore, proxy.DropBefore, proxy.Late, proxy.Away}

// after are done when the server has done the statement.
var after = []Mode{proxy.KillAfterApply, proxy.KillAfterAnswer, proxy.DropAnswer, proxy.HalfClose, proxy.Reset, Hold}

// refusals are what PostgreSQL says.
var refusals = map[Mode]pgproto3.ErrorResponse{
	Terminated: {Severity: "FATAL", Message: "terminating connection due to administrator command"},
	Serialize:  {Severity: "ERROR", Message: "could not serialize access due to concurrent update"},
	Locked:     {Severity: "ERROR", Message: "canceling statement due to lock timeout"},
	TooMany:    {Severity: "FATAL", Message: "sorry, too many clients already"},
}

// refuses reports that the client is told no.
func refuses(m Mode) bool { return refusals[m].Severity != "" }

// breaks reports that the session ends by it.
func breaks(m Mode) bool { return m != proxy.None && m != Hold && refusals[m].Severity != "ERROR" }

// Plan is one fault.
type Plan struct {
	Mode  Mode
	At    int            // number of the statement, from 1; 0: the first that Match matches
	Match *regexp.Regexp // where At is 0: the text
}

func (p Plan) hits(s *Statement) bool {
	if p.Mode == proxy.None {
		return false
	}
	return p.At > 0 && p.At == s.N || p.At == 0 && p.Match != nil && p.Match.MatchString(s.Text)
}

// instead does what is done in place of a statement.
func (s *session) instead(a *asked, m message) {
	s.server.flush() // what came before it was sent
	s.mu.Lock()
	statement := *a.statement
	s.mu.Unlock()
	switch statement.Fault {
	case proxy.Late:
		s.late(a, m)
		return
	case proxy.KillBefore:
		s.Kill(statement)
	case proxy.Away:
		back := s.Vanish()
		s.Later(0, func() {
			s.Meanwhile(statement.Fault, statement)
			back()
		})
	}
	s.sever()
}

// late breaks the client's connection now, and lets the server have what was on its way after a while: the statement and what follows up to
// Sync, which are kept in memory whole, but for the data of a COPY, which then comes to nothing.
func (s *session) late(a *asked, m message) {
	sent, batch := s.client.whole(m), []*asked{a}
	for !a.ends && m.kind != 'S' && m.kind != 'H' { // Sync, Flush: the client waits from there on
		var err error
		if m, err = s.client.next(); err != nil {
			break
		}
		s.names.learn(m)
		if m.kind == 'E' {
			if next := s.number(m); next != nil {
				batch = append(batch, next)
			}
		}
		if m.kind != 'S' {
			sent = append(sent, s.client.whole(m)...)
		}
	}
	if !a.ends {
		batch = append(batch, &asked{ends: true})
		sent = encoded(&pgproto3.Sync{}, sent)
	}
	s.client.hangUp()
	s.Later(s.LateBy, func() {
		s.mu.Lock()
		for _, a := range batch {
			if a.statement != nil {
				a.statement.Late = true
			}
		}
		s.queue = append(s.queue, batch...)
		s.mu.Unlock()
		_, _ = s.server.Write(sent)
		s.server.flush()
		s.server.hangUp()
	})
}

// refuse makes the server fail at a statement that it never hears of, so that both sides agree on what becomes of the transaction.
func (s *session) refuse(a *asked, m message) bool {
	s.client.pass(m, io.Discard)
	s.enqueue(a)
	_, _ = s.server.Write(failing(a))
	if breaks(a.statement.Fault) {
		if !a.ends { // so that there is an answer even if the server skips the statement
			s.synced()
			_, _ = s.server.Write(encoded(&pgproto3.Sync{}, nil))
		}
		s.server.flush()
		return false
	}
	s.server.flush()
	for !a.ends && m.kind != 'S' { // to Sync, as the server does after an error
		var err error
		if m, err = s.client.next(); err != nil {
			break
		}
		switch m.kind {
		case 'S': // Sync
			s.synced()
			s.client.pass(m, s.server)
		case 'H': // Flush
			s.client.pass(m, s.server)
			s.server.flush()
		default:
			s.client.pass(m, io.Discard)
		}
	}
	return true
}

// failing is what the server gets in place of a statement that is refused. A COMMIT that fails ends its transaction, anything else does not.
func failing(a *asked) (sent []byte) {
	commit := a.statement.Verb() == "COMMIT" && !breaks(a.statement.Fault)
	switch {
	case a.ends && commit:
		return encoded(&pgproto3.Query{String: "ROLLBACK"}, nil)
	case a.ends:
		return encoded(&pgproto3.Query{String: "'refused"}, nil) // a quote that does not end
	case commit:
		return encoded(&pgproto3.Execute{}, encoded(&pgproto3.Bind{}, encoded(&pgproto3.Parse{Query: "ROLLBACK"}, nil)))
	}
	return encoded(&pgproto3.Execute{Portal: "refused"}, nil) // a portal that there is not
}

// encoded appends a message. It can be encoded: we made it.
func encoded(m pgproto3.Message, to []byte) []byte {
	b, err := m.Encode(to)
	if err != nil {
		panic(err)
	}
	return b
}

// refusal is the answer of a mode that says no.
func refusal(m Mode) []byte {
	r := refusals[m]
	r.SeverityUnlocalized, r.Code = r.Severity, string(m)
	return encoded(&r, nil)
}
