package pgproxy

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/e2e/postgres"
)

// script is a small migration that may be run again.
var script = []string{"BEGIN", "CREATE TABLE IF NOT EXISTS t (n int PRIMARY KEY)", "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "COMMIT"}

// tags are how the server answers it.
var tags = []string{"BEGIN", "CREATE TABLE", "INSERT 0 1", "COMMIT"}

const (
	nothing = "nothing"
	all     = "all"
)

// outcomes are what the server holds in the end.
var outcomes = []struct {
	mode            Mode
	earlier, commit string // the fault hits a statement before COMMIT, or COMMIT
	sees            string // what the client's error says
	reached         bool   // the server heard of the statement
	status          string // of the transaction after an error that leaves the session alone: at BEGIN, within, at COMMIT
}{
	{mode: proxy.KillBefore, earlier: nothing, commit: nothing, sees: "killed"},
	{mode: proxy.KillAfterApply, earlier: nothing, commit: all, sees: "killed", reached: true},
	{mode: proxy.KillAfterAnswer, earlier: nothing, commit: all, sees: "killed", reached: true},
	{mode: proxy.DropBefore, earlier: nothing, commit: nothing, sees: "EOF"},
	{mode: proxy.DropAnswer, earlier: nothing, commit: all, sees: "EOF", reached: true},
	{mode: proxy.Late, earlier: nothing, commit: all, sees: "EOF", reached: true},
	{mode: proxy.HalfClose, earlier: nothing, commit: all, sees: "EOF", reached: true},
	{mode: proxy.Reset, earlier: nothing, commit: all, sees: "reset by peer", reached: true},
	{mode: proxy.Away, earlier: nothing, commit: nothing, sees: "EOF"},
	{mode: Terminated, earlier: nothing, commit: nothing, sees: "SQLSTATE 57P01"},
	{mode: TooMany, earlier: nothing, commit: nothing, sees: "SQLSTATE 53300"},
	{mode: Serialize, earlier: nothing, commit: nothing, sees: "SQLSTATE 40001", status: "IEI"},
	{mode: Locked, earlier: nothing, commit: nothing, sees: "SQLSTATE 55P03", status: "IEI"},
	{mode: Hold, earlier: all, commit: all, sees: "", reached: true},
}

// protocols are ways to ask for a statement.
var protocols = []struct {
	name string
	exec func(context.Context, *pgconn.PgConn, string) error
}{
	{"simple", func(ctx context.Context, c *pgconn.PgConn, sql string) error {
		return c.Exec(ctx, sql).Close() // ReadAll forgets why a connection broke
	}},
	{"extended", func(ctx context.Context, c *pgconn.PgConn, sql string) error {
		return c.ExecParams(ctx, sql, nil, nil, nil, nil).Read().Err
	}},
}

func TestEveryFaultAtEveryStatementOfATransaction(t *testing.T) {
	server := postgres.Start(t)
	direct := connect(t, server.DSN("postgres"))
	covered := []Mode{}
	for _, o := range outcomes {
		covered = append(covered, o.mode)
		for _, protocol := range protocols {
			for i := range script {
				t.Run(fmt.Sprintf("%s at %s, %s protocol", o.mode, tags[i], protocol.name), func(t *testing.T) {
					exec(t, direct, "DROP TABLE IF EXISTS t")
					want, status := o.earlier, "E"
					switch tags[i] {
					case "BEGIN":
						status = "I"
					case "COMMIT":
						want, status = o.commit, "I"
					}
					r := &run{exec: protocol.exec, ended: make(chan struct{})}
					p := r.start(t, server, direct, want)
					p.Arm(Plan{Mode: o.mode, At: i + 1})
					err := r.migrate(t.Context())
					if err == nil && r.killed.Load() { // it had the last answer before that
						err = errKilled
					}
					if o.sees == "" && err != nil || o.sees != "" && (err == nil || !strings.Contains(err.Error(), o.sees)) {
						t.Errorf("the client saw %v, want %q", err, o.sees)
					}
					if o.status != "" && r.status != status {
						t.Errorf("the transaction's status is %s, want %s", r.status, status)
					}
					fired := p.Fired()
					if len(fired) != 1 || fired[0].N != i+1 || fired[0].Fault != o.mode {
						t.Fatalf("fired %+v", fired)
					}
					if o.mode == proxy.Late {
						if held := holds(t, direct); held != nothing && time.Since(fired[0].At) < p.LateBy {
							t.Errorf("the server holds %s before the late statement is due", held)
						}
					}
					p.Settle()
					if got := holds(t, direct); got != want {
						t.Errorf("the server holds %s, want %s", got, want)
					}
					if diff := cmp.Diff(passed(i, o.mode, o.reached), lines(p.Statements())); diff != "" {
						t.Errorf("statements: -want +got\n%s", diff)
					}
					p.Arm()
					again := &run{exec: protocol.exec, dsn: r.dsn, ended: make(chan struct{})}
					if err := again.migrate(t.Context()); err != nil {
						t.Errorf("again: %v", err)
					}
					if got := holds(t, direct); got != all {
						t.Errorf("after it ran again the server holds %s", got)
					}
					if n := len(p.Statements()); n != len(script) {
						t.Errorf("%d statements when it ran again", n)
					}
				})
			}
		}
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(Modes)), slices.Sorted(slices.Values(covered))); diff != "" {
		t.Errorf("modes that were tried: -all +tried\n%s", diff)
	}
}

// passed are the statements up to the fault, and after it if that leaves the client running.
func passed(fault int, mode Mode, reached bool) (want []string) {
	for i, sql := range script {
		line := fmt.Sprintf("%d %s: %s", i+1, tags[i], sql)
		switch {
		case i == fault && !reached:
			return append(want, fmt.Sprintf("%d -: %s (%s)", i+1, sql, mode))
		case i == fault:
			line += fmt.Sprintf(" (%s)", mode)
		case i > fault && mode != Hold:
			return want
		case i > fault: // counted from the fault on
			line = fmt.Sprintf("%d %s: %s", i-fault, tags[i], sql)
		}
		want = append(want, line)
	}
	return want
}

// errKilled is what became of a client.
var errKilled = fmt.Errorf("killed")

// run is a client that runs the script once. When it is killed nothing more is heard of it.
type run struct {
	dsn    string
	exec   func(context.Context, *pgconn.PgConn, string) error
	conn   atomic.Pointer[net.Conn]
	killed atomic.Bool
	ended  chan struct{}
	status string // of the transaction at its end
}

// start makes a proxy for it, which expects the server to hold something while the answer to COMMIT is held.
func (r *run) start(t *testing.T, server *postgres.Server, direct *pgx.Conn, want string) *Proxy {
	t.Helper()
	p := &Proxy{Server: server.Address, LateBy: 50 * time.Millisecond}
	p.Kill = func(Statement) {
		r.killed.Store(true)
		(*r.conn.Load()).Close()
		<-r.ended
	}
	p.Meanwhile = func(mode Mode, s Statement) {
		if mode == proxy.Away {
			<-r.ended
			if c, err := pgconn.Connect(t.Context(), r.dsn); err == nil {
				c.Close(t.Context())
				t.Error("somebody was let in while nobody answers")
			}
			return
		}
		select {
		case <-r.ended:
			t.Error("the client had its answer while that was held")
		default:
		}
		if got := holds(t, direct); s.Verb() == "COMMIT" && got != want {
			t.Errorf("while the answer is held the server holds %s, want %s", got, want)
		}
	}
	begin(t, p)
	r.dsn = server.Through(p.Address(), "postgres")
	return p
}

func (r *run) migrate(ctx context.Context) error {
	defer close(r.ended)
	config, err := pgconn.ParseConfig(r.dsn)
	if err != nil {
		return err
	}
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if r.killed.Load() {
			return nil, errKilled
		}
		c, err := dial(ctx, network, address)
		if err == nil {
			r.conn.Store(&c)
		}
		return c, err
	}
	c, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for _, sql := range script {
		if err := r.exec(ctx, c, sql); err != nil {
			r.status = string(c.TxStatus())
			if r.killed.Load() {
				err = errKilled
			}
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// holds is what the server holds of the script.
func holds(t *testing.T, c *pgx.Conn) string {
	t.Helper()
	var there bool
	if err := c.QueryRow(t.Context(), "SELECT to_regclass('t') IS NOT NULL").Scan(&there); err != nil {
		t.Error(err)
	}
	if !there {
		return nothing
	}
	if n := count(t, c, "t"); n != 1 {
		return fmt.Sprintf("%d rows", n)
	}
	return all
}
