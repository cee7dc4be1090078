package pgproxy

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/e2e/postgres"
)

func TestStatementsAreNumberedHoweverTheyAreAsked(t *testing.T) {
	server := postgres.Start(t)
	exec(t, connect(t, server.DSN("postgres")), "CREATE TABLE t (n int PRIMARY KEY)")
	p := &Proxy{Server: server.Address}
	begin(t, p)
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, c *pgx.Conn)
		want []string
	}{
		{"queries one by one", func(t *testing.T, c *pgx.Conn) {
			exec(t, c, "SELECT 1")
			exec(t, c, "")
			exec(t, c, "SELECT 2; SELECT 3 UNION SELECT 4")
		}, []string{"1 SELECT 1: SELECT 1", "2 -: ", "3 SELECT 2: SELECT 2; SELECT 3 UNION SELECT 4"}},
		{"prepared by the way", func(t *testing.T, c *pgx.Conn) {
			for n := range 2 {
				exec(t, c, "SELECT $1::int", n)
			}
		}, []string{"1 SELECT 1: SELECT $1::int", "2 SELECT 1: SELECT $1::int"}},
		{"what the server refuses", func(t *testing.T, c *pgx.Conn) {
			for _, sql := range []string{"SELEC 1", "SELECT 1/0", "SELECT $1::int"} {
				if _, err := c.Exec(t.Context(), sql); err == nil {
					t.Errorf("%s: no error", sql)
				}
			}
			if err := c.PgConn().ExecParams(t.Context(), "SELEC 1", nil, nil, nil, nil).Read().Err; err == nil {
				t.Error("no error")
			}
			exec(t, c, "SELECT 1")
		}, []string{"1 42601: SELEC 1", "2 22012: SELECT 1/0", "3 42P02: SELECT $1::int", "4 42601: SELEC 1", "5 SELECT 1: SELECT 1"}},
		{"a pipeline", func(t *testing.T, c *pgx.Conn) {
			pipe := c.PgConn().StartPipeline(t.Context())
			pipe.SendPrepare("one", "SELECT 1", nil)
			pipe.SendPrepare("two", "SELECT 1 UNION SELECT 2", nil)
			ask(pipe, "INSERT INTO t VALUES (1)")
			pipe.SendQueryPrepared("two", nil, nil, nil)
			pipe.SendQueryPrepared("one", nil, nil, nil)
			pipe.SendDeallocate("one")
			pipe.SendPipelineSync()
			ask(pipe, "DELETE FROM t")
			if err := finish(pipe); err != nil {
				t.Error(err)
			}
		}, []string{"1 INSERT 0 1: INSERT INTO t VALUES (1)", "2 SELECT 2: SELECT 1 UNION SELECT 2", "3 SELECT 1: SELECT 1", "4 DELETE 1: DELETE FROM t"}},
		{"a pipeline that fails in its middle", func(t *testing.T, c *pgx.Conn) {
			pipe := c.PgConn().StartPipeline(t.Context())
			ask(pipe, "INSERT INTO t VALUES (1)")
			ask(pipe, "SELECT 1/0")
			ask(pipe, "INSERT INTO t VALUES (2)")
			pipe.SendPipelineSync()
			ask(pipe, "SELECT 1")
			if err := finish(pipe); err == nil {
				t.Error("no error")
			}
		}, []string{"1 INSERT 0 1: INSERT INTO t VALUES (1)", "2 22012: SELECT 1/0", "3 -: INSERT INTO t VALUES (2)", "4 SELECT 1: SELECT 1"}},
		{"a pipeline that fails at its end", func(t *testing.T, c *pgx.Conn) {
			exec(t, c, "CREATE TEMPORARY TABLE d (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
			pipe := c.PgConn().StartPipeline(t.Context())
			ask(pipe, "INSERT INTO d VALUES (1), (1)")
			ask(pipe, "SELECT 1")
			if err := finish(pipe); err == nil {
				t.Error("no error")
			}
		}, []string{"1 CREATE TABLE: CREATE TEMPORARY TABLE d (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)", "2 INSERT 0 2: INSERT INTO d VALUES (1), (1)", "3 SELECT 1 23505: SELECT 1"}},
		{"a name that was taken back", func(t *testing.T, c *pgx.Conn) {
			talk(t, c.PgConn(), "1ZZ", &pgproto3.Parse{Name: "one", Query: "SELECT 1"}, &pgproto3.Sync{}, &pgproto3.Sync{})
			talk(t, c.PgConn(), "3EZ", &pgproto3.Close{ObjectType: 'S', Name: "one"}, &pgproto3.Bind{PreparedStatement: "one"}, &pgproto3.Execute{}, &pgproto3.Sync{})
			talk(t, c.PgConn(), "3Z", &pgproto3.Close{ObjectType: 'P', Name: "none"}, &pgproto3.Sync{})
		}, []string{"1 26000: "}},
		{"rows by portions", func(t *testing.T, c *pgx.Conn) {
			talk(t, c.PgConn(), "123sZ", &pgproto3.Parse{Query: "SELECT generate_series(1, 3)"}, &pgproto3.Bind{DestinationPortal: "p"},
				&pgproto3.Close{ObjectType: 'S'}, &pgproto3.Execute{Portal: "p", MaxRows: 2}, &pgproto3.Sync{})
		}, []string{"1 -: SELECT generate_series(1, 3)"}},
		{"copies as libpq asks for them", func(t *testing.T, c *pgx.Conn) {
			talk(t, c.PgConn(), "12G", &pgproto3.Parse{Query: "COPY t FROM STDIN"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
			talk(t, c.PgConn(), "CZ", &pgproto3.CopyData{Data: []byte("7\n")}, &pgproto3.CopyDone{}, &pgproto3.Sync{})
			talk(t, c.PgConn(), "12CZ", &pgproto3.Parse{Query: "DELETE FROM t"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
		}, []string{"1 COPY 1: COPY t FROM STDIN", "2 DELETE 1: DELETE FROM t"}},
		{"a function called as in old times", func(t *testing.T, c *pgx.Conn) {
			const version = 89 // version()
			talk(t, c.PgConn(), "VZ", &pgproto3.FunctionCall{Function: version})
			exec(t, c, "SELECT 1")
		}, []string{"1 -: ", "2 SELECT 1: SELECT 1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := connect(t, server.Through(p.Address(), "postgres")+"&application_name=me")
			p.Arm()
			tt.do(t, c)
			if diff := cmp.Diff(tt.want, lines(p.Statements())); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			for _, s := range p.Statements() {
				if s.By != "me" || s.Database != "postgres" {
					t.Errorf("by %q in %q", s.By, s.Database)
				}
			}
		})
	}
}

func TestPlansFollowOneAnother(t *testing.T) {
	server := postgres.Start(t)
	p := &Proxy{Server: server.Address}
	begin(t, p)
	p.Arm(Plan{Mode: Serialize, At: 2}, Plan{Mode: proxy.DropBefore, Match: regexp.MustCompile(`(?i)^\s*commit`)}, Plan{}, Plan{Mode: Locked, At: 1})
	c := connect(t, server.Through(p.Address(), "postgres"))
	exec(t, c, "BEGIN")
	for _, sql := range []string{"SELECT 1", "ROLLBACK", "BEGIN", " commit"} {
		_, err := c.Exec(t.Context(), sql)
		if failed := err != nil; failed != (sql == "SELECT 1" || sql == " commit") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	exec(t, connect(t, server.Through(p.Address(), "postgres")), "SELECT 2")
	want := []string{"1 BEGIN: BEGIN", "2 -: SELECT 1 (40001)", "1 ROLLBACK: ROLLBACK", "2 BEGIN: BEGIN", "3 -:  commit (drop-before)", "1 SELECT 1: SELECT 2"}
	if diff := cmp.Diff(want, lines(p.Statements())); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if diff := cmp.Diff([]string{want[1], want[4]}, lines(p.Fired())); diff != "" {
		t.Errorf("fired: -want +got\n%s", diff)
	}
}

// talk sends messages and waits for answers of the kinds given, rows and descriptions aside.
func talk(t *testing.T, c *pgconn.PgConn, kinds string, messages ...pgproto3.FrontendMessage) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, m := range messages {
		c.Frontend().Send(m)
	}
	if err := c.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	for got := ""; got != kinds; {
		m, err := c.ReceiveMessage(ctx)
		if err != nil {
			t.Fatalf("after %q of %q: %v", got, kinds, err)
		}
		kind, err := m.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		if kind[0] != 'D' && kind[0] != 'T' {
			got += string(kind[:1])
		}
		if !strings.HasPrefix(kinds, got) {
			t.Fatalf("answers %q, want %q", got, kinds)
		}
	}
}
