// Package pgproxy stands between a program and its PostgreSQL server, numbers the statements, and does one planned thing to one of them.
package pgproxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Proxy is a PostgreSQL server to its clients. Their credentials are passed on; it has none. Its fields are set before Start.
type Proxy struct {
	Server string // host:port of the real one
	// Kill ends the program that a statement came from at once and returns when it has ended.
	Kill func(Statement)
	// Meanwhile is what goes on while an answer is held or nobody answers (Hold, Away): both end when it returns.
	Meanwhile func(Mode, Statement)
	// LateBy is how long a late statement is held back.
	LateBy time.Duration

	listener net.Listener
	closed   chan struct{}
	served   sync.WaitGroup // connections and what is to be done later

	mu         sync.Mutex
	conns      map[net.Conn]struct{}
	sessions   map[*session]struct{}
	away       int    // how many want nobody to be answered
	plans      []Plan // the first is the next
	n          int    // statements since the last fault
	fired      []*Statement
	statements []*Statement
	pending    int        // what Settle waits for
	settled    *sync.Cond // it is 0
}

// Start begins to serve, on a free port of the loopback interface.
func (p *Proxy) Start() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.listener, p.closed, p.settled = l, make(chan struct{}), sync.NewCond(&p.mu)
	p.conns, p.sessions = map[net.Conn]struct{}{}, map[*session]struct{}{}
	p.served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.served.Go(func() { p.serve(c) })
		}
	})
	return nil
}

// Address is where it serves.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Close cuts all connections, and gives up what is held back.
func (p *Proxy) Close() {
	close(p.closed)
	_ = p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.served.Wait()
}

// Arm forgets what passed and plans faults, one after the other: the second counts from the first on.
func (p *Proxy) Arm(plans ...Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plans, p.n, p.fired, p.statements = plans, 0, nil, nil
}

// Fired are the statements that faults were done to.
func (p *Proxy) Fired() []Statement {
	p.mu.Lock()
	defer p.mu.Unlock()
	return copies(p.fired)
}

// Statements are those since Arm.
func (p *Proxy) Statements() []Statement {
	p.mu.Lock()
	defer p.mu.Unlock()
	return copies(p.statements)
}

func copies(statements []*Statement) []Statement {
	all := make([]Statement, len(statements))
	for i, s := range statements {
		all[i] = *s
	}
	return all
}

// Later does something after a while. Settle waits for it.
func (p *Proxy) Later(after time.Duration, do func()) {
	p.mu.Lock()
	p.pending++
	p.mu.Unlock()
	p.served.Go(func() {
		select {
		case <-time.After(after):
			do()
		case <-p.closed:
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.settle()
	})
}

// settle takes back what Settle waits for. mu is held.
func (p *Proxy) settle() {
	if p.pending--; p.pending == 0 {
		p.settled.Broadcast()
	}
}

// Settle waits until nothing is held back any more, and the server has ended, with all that they asked of it, the sessions that a fault broke
// or whose clients are seen to be gone.
func (p *Proxy) Settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.pending > 0 {
		p.settled.Wait()
	}
}

// Vanish makes everybody's connections break and nobody be let in, until the function that it returns is called.
func (p *Proxy) Vanish() (back func()) {
	p.mu.Lock()
	p.away++
	sessions := slices.Collect(maps.Keys(p.sessions))
	p.mu.Unlock()
	for _, s := range sessions {
		s.sever()
	}
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.away--
	})
}

// track makes Close close a connection.
func (p *Proxy) track(c net.Conn) (untrack func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = struct{}{}
	select {
	case <-p.closed:
		_ = c.Close()
	default:
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
		_ = c.Close()
	}
}

// serve is one connection, from its first message on.
func (p *Proxy) serve(c net.Conn) {
	defer p.track(c)()
	client := newEnd(c)
	p.mu.Lock()
	away := p.away > 0
	p.mu.Unlock()
	if away {
		client.reset()
		return
	}
	first, asked, err := client.startup()
	if err != nil || p.lost(asked, first) {
		return
	}
	conn, err := net.Dial("tcp", p.Server)
	if err != nil {
		return
	}
	defer p.track(conn)()
	server := newEnd(conn)
	_, _ = server.Write(first)
	server.flush()
	startup, ok := asked.(*pgproto3.StartupMessage)
	if !ok { // CancelRequest: whoever sends one waits until the server has taken note and hangs up
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	p.converse(client, server, startup.Parameters)
}

// lost reports that a CancelRequest is for a session that a fault has broken. Nothing else that its client says is heard either, and what
// becomes of a late statement is not to hang on how fast a client is.
func (p *Proxy) lost(asked pgproto3.FrontendMessage, raw []byte) bool {
	if _, ok := asked.(*pgproto3.CancelRequest); !ok {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sessions {
		if s.doomed && s.key == string(raw[8:]) {
			return true
		}
	}
	return false
}

// startup is a connection's first message that asks for more than encryption, for which there is no need here.
func (e *end) startup() ([]byte, pgproto3.FrontendMessage, error) {
	for {
		var length [4]byte
		if _, err := io.ReadFull(e.in, length[:]); err != nil {
			return nil, nil, err
		}
		n := binary.BigEndian.Uint32(length[:])
		if n < 8 || n > 10_000 { // as PostgreSQL has it
			return nil, nil, fmt.Errorf("read startup message: its length is %d", n)
		}
		raw := append(length[:], make([]byte, n-4)...)
		if _, err := io.ReadFull(e.in, raw[4:]); err != nil {
			return nil, nil, err
		}
		m, err := pgproto3.NewBackend(bytes.NewReader(raw), nil).ReceiveStartupMessage()
		if err != nil {
			return nil, nil, err
		}
		switch m.(type) {
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			_, _ = e.Write([]byte{'N'})
			e.flush()
		default:
			return raw, m, nil
		}
	}
}
