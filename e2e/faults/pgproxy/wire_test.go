package pgproxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/e2e/postgres"
)

func TestEncryptionIsDeclined(t *testing.T) {
	server := postgres.Start(t)
	p := &Proxy{Server: server.Address}
	begin(t, p)
	exec(t, connect(t, strings.Replace(server.Through(p.Address(), "postgres"), "sslmode=disable", "sslmode=prefer", 1)), "SELECT 1")
	c := dial(t, p)
	for _, m := range []pgproto3.FrontendMessage{&pgproto3.GSSEncRequest{}, &pgproto3.SSLRequest{}} {
		c.Write(encoded(m, nil))
		var answer [1]byte
		if _, err := io.ReadFull(c, answer[:]); err != nil || answer[0] != 'N' {
			t.Fatalf("%T is answered %q, %v", m, answer, err)
		}
	}
	c.Write(encoded(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "postgres"}}, nil))
	m, err := pgproto3.NewFrontend(c, c).Receive()
	if _, ok := m.(*pgproto3.AuthenticationSASL); !ok {
		t.Errorf("the server says %T, %v", m, err)
	}
}

func TestWhatIsNoPostgreSQLClientIsHungUpOn(t *testing.T) {
	server := postgres.Start(t)
	p := &Proxy{Server: server.Address}
	begin(t, p)
	for _, tt := range []struct{ name, said string }{
		{"a web browser", "GET / HTTP/1.1\r\n\r\n"},
		{"too short", "\x00\x00\x00\x04"},
		{"an unknown wish", "\x00\x00\x00\x08\x01\x02\x03\x04"},
		{"an end too early", "\x00\x00\x00\x08\x01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, p)
			c.Write([]byte(tt.said))
			c.CloseWrite()
			if b, err := io.ReadAll(c); len(b) > 0 || os.IsTimeout(err) {
				t.Errorf("it is answered %q, %v", b, err)
			}
		})
	}
	exec(t, connect(t, server.Through(p.Address(), "postgres")), "SELECT 1")
}

func TestALengthThatCannotBeEndsTheSession(t *testing.T) {
	server := postgres.Start(t)
	p := &Proxy{Server: server.Address}
	begin(t, p)
	c := connect(t, server.Through(p.Address(), "postgres"))
	c.PgConn().Conn().Write([]byte{'Q', 0, 0, 0, 0})
	if _, err := c.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("no error")
	}
	p.Settle()
	if got := p.Statements(); len(got) > 0 {
		t.Errorf("statements %+v", got)
	}
}

func TestWhatIsLeftOfAnAnswer(t *testing.T) {
	server := postgres.Start(t)
	answer := encoded(&pgproto3.CommandComplete{CommandTag: []byte("SET")}, nil)
	whole := encoded(&pgproto3.ReadyForQuery{TxStatus: 'I'}, answer)
	fatal := encoded(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "53300", Message: "sorry, too many clients already"}, nil)
	for _, tt := range []struct {
		mode  Mode
		want  []byte
		reset bool
	}{
		{proxy.KillBefore, nil, false},
		{proxy.KillAfterApply, nil, false},
		{proxy.KillAfterAnswer, whole, false},
		{proxy.DropBefore, nil, false},
		{proxy.DropAnswer, nil, false},
		{proxy.Late, nil, false},
		{proxy.HalfClose, answer[:len(answer)/2], false},
		{proxy.Reset, nil, true},
		{proxy.Away, nil, false},
		{TooMany, fatal, false},
	} {
		t.Run(string(tt.mode), func(t *testing.T) {
			p := &Proxy{Server: server.Address, Kill: func(Statement) {}, Meanwhile: func(Mode, Statement) {}}
			begin(t, p)
			c, err := connect(t, server.Through(p.Address(), "postgres")).PgConn().Hijack()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Conn.Close() })
			c.Conn.SetDeadline(time.Now().Add(patience))
			p.Arm(Plan{Mode: tt.mode, At: 1})
			c.Conn.Write(encoded(&pgproto3.Query{String: "SET work_mem = 65"}, nil))
			got, err := io.ReadAll(c.Conn)
			if !bytes.Equal(got, tt.want) || errors.Is(err, syscall.ECONNRESET) != tt.reset || err != nil && !tt.reset {
				t.Errorf("%q is left of %q, %v; want %q", got, whole, err, tt.want)
			}
		})
	}
}

func TestOfStatementsSentAtOnceThoseBehindAFaultAreNeverDone(t *testing.T) {
	server := postgres.Start(t)
	direct := connect(t, server.DSN("postgres"))
	exec(t, direct, "CREATE TABLE t (n int)")
	for _, tt := range []struct {
		mode Mode
		at   int
		rows int
	}{
		{proxy.DropBefore, 1, 0},
		{proxy.DropBefore, 2, 1},
		{proxy.KillBefore, 2, 1},
		{proxy.Late, 1, 1},
		{proxy.Late, 2, 2},
		{proxy.DropAnswer, 1, 1},
		{proxy.DropAnswer, 2, 2},
		{proxy.KillAfterAnswer, 1, 1},
		{proxy.HalfClose, 1, 1},
		{Terminated, 1, 0},
		{Terminated, 2, 1},
		{Serialize, 2, 2},
		{Hold, 1, 3},
	} {
		t.Run(fmt.Sprintf("%s at %d", tt.mode, tt.at), func(t *testing.T) {
			exec(t, direct, "TRUNCATE t")
			p := &Proxy{Server: server.Address, Kill: func(Statement) {}, Meanwhile: func(Mode, Statement) {}}
			begin(t, p)
			c, err := connect(t, server.Through(p.Address(), "postgres")).PgConn().Hijack()
			if err != nil {
				t.Fatal(err)
			}
			c.Conn.SetDeadline(time.Now().Add(patience))
			p.Arm(Plan{Mode: tt.mode, At: tt.at})
			insert := encoded(&pgproto3.Query{String: "INSERT INTO t VALUES (1)"}, nil)
			c.Conn.Write(encoded(&pgproto3.Terminate{}, bytes.Repeat(insert, 3)))
			if _, err := io.ReadAll(c.Conn); err != nil {
				t.Error(err)
			}
			c.Conn.Close()
			p.Settle()
			if got := count(t, direct, "t"); got != tt.rows {
				t.Errorf("%d rows, want %d", got, tt.rows)
			}
		})
	}
}

func TestALongMessageIsNotKept(t *testing.T) {
	const size = 8 << 20
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		far.Write(binary.BigEndian.AppendUint32([]byte{'D'}, size+4))
		io.CopyN(far, zeros{}, size)
		far.Write([]byte{'Z', 0, 0, 0, 5, 'I'})
	}()
	e := newEnd(near)
	m, err := e.next()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.head) != limit || m.rest != size+header-limit {
		t.Errorf("%d bytes in memory and %d to come", len(m.head), m.rest)
	}
	var w meter
	e.pass(m, &w)
	if w.sum != size+header || w.largest > limit {
		t.Errorf("%d bytes passed, up to %d at once", w.sum, w.largest)
	}
	if m, err = e.next(); err != nil || m.kind != 'Z' || !bytes.Equal(m.body(), []byte{'I'}) {
		t.Errorf("the next message is %q, %v", m.head, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// meter measures what is written.
type meter struct{ sum, largest int }

func (m *meter) Write(b []byte) (int, error) {
	m.sum, m.largest = m.sum+len(b), max(m.largest, len(b))
	return len(b), nil
}

func TestVerbs(t *testing.T) {
	for _, tt := range []struct{ text, tag, want string }{
		{"commit", "", "COMMIT"},
		{" ;\n\tEnd Transaction", "", "COMMIT"},
		{"START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "", "BEGIN"},
		{"start", "", "START"},
		{"abort", "", "ROLLBACK"},
		{"COMMIT;", "ROLLBACK", "ROLLBACK"},
		{"-- why\n/* BEGIN /* within */ */COMMIT", "", "COMMIT"},
		{"-- COMMIT", "", ""},
		{"/* COMMIT", "", ""},
		{"/*/ COMMIT", "", ""},
		{"", "", ""},
		{"CREATE_X", "", "CREATE_X"},
		{"insert into commit values (1)", "INSERT 0 1", "INSERT"},
	} {
		if got := (Statement{Text: tt.text, Tag: tt.tag}).Verb(); got != tt.want {
			t.Errorf("%q answered %q: %q, want %q", tt.text, tt.tag, got, tt.want)
		}
	}
}

// dial connects without a word.
func dial(t *testing.T, p *Proxy) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}
