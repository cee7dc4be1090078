package pgproxy

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/e2e/postgres"
)

func TestAFaultInTheMiddleOfAPipeline(t *testing.T) {
	server := postgres.Start(t)
	direct := connect(t, server.DSN("postgres"))
	exec(t, direct, "CREATE TABLE t (n int)")
	for _, tt := range []struct {
		mode Mode
		rows int
		sees string
		want []string // the statements behind the first, whose answer is under way
	}{
		{proxy.None, 3, "", []string{"2 INSERT 0 1: two", "3 INSERT 0 1: three"}},
		{proxy.DropBefore, 0, "EOF", []string{"2 -: two (drop-before)"}},
		{proxy.KillBefore, 0, "EOF", []string{"2 -: two (kill-before)"}},
		{proxy.DropAnswer, 3, "EOF", []string{"2 INSERT 0 1: two (drop-answer)", "0 INSERT 0 1: three"}},
		{proxy.KillAfterApply, 3, "EOF", []string{"2 INSERT 0 1: two (kill-after-apply)", "0 INSERT 0 1: three"}},
		{proxy.KillAfterAnswer, 3, "", []string{"2 INSERT 0 1: two (kill-after-answer)", "0 INSERT 0 1: three"}},
		{proxy.HalfClose, 3, "EOF", []string{"2 INSERT 0 1: two (half-close)", "0 INSERT 0 1: three"}},
		{proxy.Late, 3, "EOF", []string{"2 INSERT 0 1: two (late)", "0 INSERT 0 1: three (delivered late)"}},
		{Serialize, 0, "40001", []string{"2 -: two (40001)"}},
		{Terminated, 0, "57P01", []string{"2 -: two (57P01)"}},
		{Hold, 3, "", []string{"2 INSERT 0 1: two (hold)", "1 INSERT 0 1: three"}},
	} {
		t.Run(string(tt.mode), func(t *testing.T) {
			exec(t, direct, "TRUNCATE t")
			held := false
			p := &Proxy{Server: server.Address, LateBy: time.Millisecond, Kill: func(Statement) {}, Meanwhile: func(Mode, Statement) { held = true }}
			begin(t, p)
			c := connect(t, server.Through(p.Address(), "postgres"))
			p.Arm(Plan{Mode: tt.mode, At: 2})
			pipe := c.PgConn().StartPipeline(t.Context())
			for _, name := range []string{"one", "two", "three"} {
				ask(pipe, "INSERT INTO t SELECT length('"+name+"')")
			}
			err := finish(pipe)
			if tt.sees == "" && err != nil || tt.sees != "" && (err == nil || !strings.Contains(err.Error(), tt.sees)) {
				t.Errorf("the client saw %v, want %q", err, tt.sees)
			}
			if !breaks(tt.mode) {
				exec(t, c, "SELECT 1") // the session goes on
			}
			p.Settle()
			if got := count(t, direct, "t"); got != tt.rows {
				t.Errorf("%d rows, want %d", got, tt.rows)
			}
			got := lines(p.Statements())[1:]
			if !breaks(tt.mode) {
				got = got[:len(got)-1]
			}
			for i := range got {
				got[i] = strings.NewReplacer("INSERT INTO t SELECT length('", "", "')", "").Replace(got[i])
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if held != (tt.mode == Hold) {
				t.Errorf("held: %t", held)
			}
		})
	}
}

func TestAFaultAtAStatementThatTheServerSkips(t *testing.T) {
	server := postgres.Start(t)
	for _, mode := range []Mode{Serialize, Terminated, proxy.DropAnswer, proxy.KillAfterAnswer, Hold} {
		t.Run(string(mode), func(t *testing.T) {
			p := &Proxy{Server: server.Address, Kill: func(Statement) {}, Meanwhile: func(Mode, Statement) {}}
			begin(t, p)
			c := connect(t, server.Through(p.Address(), "postgres"))
			p.Arm(Plan{Mode: mode, At: 2})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			pipe := c.PgConn().StartPipeline(ctx)
			ask(pipe, "SELECT 1/0")
			ask(pipe, "SELECT 2")
			if err := finish(pipe); err == nil || !strings.Contains(err.Error(), "22012") {
				t.Errorf("the client saw %v", err)
			}
			_, err := c.Exec(ctx, "SELECT 3")
			if broken := err != nil; broken != breaks(mode) {
				t.Errorf("the session's next statement: %v", err)
			}
			p.Settle()
			want := []string{"1 22012: SELECT 1/0", "2 -: SELECT 2 (" + string(mode) + ")"}
			if !breaks(mode) {
				want = append(want, "1 SELECT 1: SELECT 3")
			}
			if diff := cmp.Diff(want, lines(p.Statements())); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestAnAnswerThatIsAskedForByFlushMeetsItsFault(t *testing.T) {
	server := postgres.Start(t)
	for _, mode := range []Mode{proxy.DropAnswer, proxy.HalfClose, proxy.KillAfterApply, proxy.Late, Serialize, Terminated} {
		t.Run(string(mode), func(t *testing.T) {
			p := &Proxy{Server: server.Address, Kill: func(Statement) {}}
			begin(t, p)
			c := connect(t, server.Through(p.Address(), "postgres"))
			p.Arm(Plan{Mode: mode, Match: regexp.MustCompile("^SELECT 2")})
			pipe := c.PgConn().StartPipeline(t.Context())
			ask(pipe, "SELECT 1")
			ask(pipe, "SELECT 2")
			pipe.SendFlushRequest()
			if err := pipe.Flush(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			defer context.AfterFunc(ctx, func() { c.PgConn().Conn().Close() })()
			var err error
			for err == nil && ctx.Err() == nil {
				var result any
				if result, err = pipe.GetResults(); result != nil {
					if r, ok := result.(*pgconn.ResultReader); ok {
						err = r.Read().Err
					}
				}
			}
			if ctx.Err() != nil || err == nil {
				t.Errorf("the client saw %v in %s", err, patience)
			}
			if fired := p.Fired(); len(fired) != 1 || fired[0].N != 2 {
				t.Errorf("fired %+v", fired)
			}
		})
	}
}

// ask adds a statement to a pipeline.
func ask(pipe *pgconn.Pipeline, sql string) { pipe.SendQueryParams(sql, nil, nil, nil, nil) }

// finish sends a pipeline and returns the first error of its answers.
func finish(pipe *pgconn.Pipeline) error {
	first := pipe.Sync()
	for {
		result, err := pipe.GetResults()
		if r, ok := result.(*pgconn.ResultReader); ok {
			err = r.Read().Err
		}
		var refused *pgconn.PgError
		if first == nil {
			first = err
		}
		if err != nil && !errors.As(err, &refused) || err == nil && result == nil {
			break
		}
	}
	pipe.Close() // says the same
	return first
}
