package pgproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/e2e/postgres"
)

func TestACancelRequestFindsItsSession(t *testing.T) {
	server := postgres.Start(t)
	direct := connect(t, server.DSN("postgres"))
	p := &Proxy{Server: server.Address}
	begin(t, p)
	c := connect(t, server.Through(p.Address(), "postgres"))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, "SELECT pg_sleep(600)")
		ended <- err
	}()
	eventually(t, direct, "state = 'active' AND query LIKE '%sleep(600)'")
	if err := c.PgConn().CancelRequest(ctx); err != nil {
		t.Error(err)
	}
	var refused *pgconn.PgError
	if err := <-ended; !errors.As(err, &refused) || refused.Code != "57014" {
		t.Errorf("the client saw %v", err)
	}
	exec(t, c, "SELECT 1")
	if diff := strings.Join(lines(p.Statements()), ", "); diff != "1 57014: SELECT pg_sleep(600), 2 SELECT 1: SELECT 1" {
		t.Error(diff)
	}
}

func TestACancelRequestBehindAFaultIsLost(t *testing.T) {
	server := postgres.Start(t)
	direct := connect(t, server.DSN("postgres"))
	exec(t, direct, "CREATE TABLE t (n int)")
	exec(t, direct, "SELECT pg_advisory_lock(1)")
	p := &Proxy{Server: server.Address}
	begin(t, p)
	c := connect(t, server.Through(p.Address(), "postgres"))
	p.Arm(Plan{Mode: proxy.Late, At: 1})
	if _, err := c.Exec(t.Context(), "INSERT INTO t SELECT 1 FROM pg_advisory_lock(1)"); err == nil {
		t.Error("no error")
	}
	eventually(t, direct, "wait_event = 'advisory'")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.PgConn().CancelRequest(ctx); err != nil {
		t.Error(err)
	}
	exec(t, direct, "SELECT pg_advisory_unlock(1)")
	p.Settle()
	if got := count(t, direct, "t"); got != 1 {
		t.Errorf("%d rows: %v", got, lines(p.Statements()))
	}
}

func TestWhatTheServerSaysUnaskedArrives(t *testing.T) {
	server := postgres.Start(t)
	direct := connect(t, server.DSN("postgres"))
	p := &Proxy{Server: server.Address}
	begin(t, p)
	config, err := pgx.ParseConfig(server.Through(p.Address(), "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	var notices []string
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message) }
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	exec(t, c, "LISTEN news")
	for n := range 3 { // while nothing is asked, and beside an answer
		exec(t, direct, fmt.Sprintf("NOTIFY news, '%d'", n))
		if n == 1 {
			exec(t, c, "SELECT 1")
		}
		if got, err := c.WaitForNotification(ctx); err != nil || got.Payload != fmt.Sprint(n) {
			t.Errorf("notification %+v, %v", got, err)
		}
	}
	exec(t, c, "DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
	exec(t, c, "SET application_name = 'other'")
	if got := strings.Join(notices, " "); got != "one two" {
		t.Errorf("notices %q", got)
	}
	if got := c.PgConn().ParameterStatus("application_name"); got != "other" {
		t.Errorf("application_name %q", got)
	}
	want := "1 LISTEN: LISTEN news, 2 SELECT 1: SELECT 1, 3 DO: DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$, 4 SET: SET application_name = 'other'"
	if got := strings.Join(lines(p.Statements()), ", "); got != want {
		t.Errorf("statements %s", got)
	}
}

func TestAwayAndBack(t *testing.T) {
	server := postgres.Start(t)
	direct := connect(t, server.DSN("postgres"))
	exec(t, direct, "CREATE TABLE t (n int)")
	p := &Proxy{Server: server.Address}
	begin(t, p)
	idle, busy := connect(t, server.Through(p.Address(), "postgres")), connect(t, server.Through(p.Address(), "postgres"))
	exec(t, busy, "BEGIN")
	exec(t, busy, "INSERT INTO t VALUES (1)")
	back, backToo := p.Vanish(), p.Vanish()
	for name, c := range map[string]*pgx.Conn{"idle": idle, "busy": busy} {
		if _, err := c.Exec(t.Context(), "SELECT 1"); err == nil {
			t.Errorf("the %s session goes on", name)
		}
	}
	refused := func() {
		t.Helper()
		if c, err := pgx.Connect(t.Context(), server.Through(p.Address(), "postgres")); err == nil {
			c.Close(t.Context())
			t.Error("somebody was let in")
		}
		c, err := net.Dial("tcp", p.Address())
		if err == nil {
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			_, err = c.Read(make([]byte, 1))
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("who says nothing sees %v", err)
		}
	}
	refused()
	p.Settle()
	exec(t, direct, "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE NOWAIT; COMMIT") // the server has ended what was open
	back()
	back()
	refused()
	backToo()
	c := connect(t, server.Through(p.Address(), "postgres"))
	if got := count(t, c, "t"); got != 0 {
		t.Errorf("%d rows of a transaction that was open", got)
	}
}

func TestSettleWaitsForWhatTheServerStillDoes(t *testing.T) {
	server := postgres.Start(t)
	direct := connect(t, server.DSN("postgres"))
	exec(t, direct, "CREATE TABLE t (n int)")
	exec(t, direct, "SELECT pg_advisory_lock(1)")
	p := &Proxy{Server: server.Address}
	begin(t, p)
	p.Arm(Plan{Mode: proxy.DropAnswer, At: 1})
	c := connect(t, server.Through(p.Address(), "postgres"))
	ended, settled := make(chan error, 1), make(chan struct{})
	go func() {
		_, err := c.Exec(t.Context(), "INSERT INTO t SELECT 1 FROM pg_advisory_lock(1)")
		ended <- err
	}()
	eventually(t, direct, "wait_event = 'advisory'")
	go func() {
		p.Settle()
		close(settled)
	}()
	select {
	case <-settled:
		t.Error("Settle returned while the server works")
	case err := <-ended:
		t.Errorf("the client saw %v", err)
	default:
	}
	exec(t, direct, "SELECT pg_advisory_unlock(1)")
	if err := <-ended; err == nil {
		t.Error("no error")
	}
	<-settled
	if got := count(t, direct, "t"); got != 1 {
		t.Errorf("%d rows", got)
	}
}

func TestAServerThatEndsIsSeenAsItWouldBeWithoutUs(t *testing.T) {
	server := postgres.Start(t)
	p := &Proxy{Server: server.Address}
	begin(t, p)
	dsn := server.Through(p.Address(), "postgres")
	for _, tt := range []struct {
		name string
		end  func()
		code string
	}{
		{"an administrator stops it", server.Stop, "57P01"},
		{"it crashes", server.Kill, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			direct, c := connect(t, server.DSN("postgres")), connect(t, dsn)
			ended := make(chan error, 1)
			go func() {
				_, err := c.Exec(t.Context(), "SELECT pg_sleep(600)")
				ended <- err
			}()
			eventually(t, direct, "state = 'active' AND query LIKE '%sleep(600)'")
			tt.end()
			err := <-ended
			var refused *pgconn.PgError
			if code := ""; err == nil || errors.As(err, &refused) && refused.Code != tt.code || refused == nil && tt.code != code {
				t.Errorf("the client saw %v", err)
			}
			if c, err := pgx.Connect(t.Context(), dsn); err == nil {
				c.Close(t.Context())
				t.Error("somebody was let in")
			}
			server.Start()
			exec(t, connect(t, dsn), "SELECT 1")
		})
	}
}

func TestCloseEndsAll(t *testing.T) {
	server := postgres.Start(t)
	p := &Proxy{Server: server.Address, LateBy: time.Hour}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	idle, late := connect(t, server.Through(p.Address(), "postgres")), connect(t, server.Through(p.Address(), "postgres"))
	dial(t, p)
	p.Arm(Plan{Mode: proxy.Late, At: 1})
	if _, err := late.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("no error")
	}
	p.Close()
	p.Settle()
	if _, err := idle.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a session goes on")
	}
}
