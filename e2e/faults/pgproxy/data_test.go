package pgproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/e2e/postgres"
)

func TestCopies(t *testing.T) {
	server := postgres.Start(t)
	direct := connect(t, server.DSN("postgres"))
	exec(t, direct, "CREATE TABLE t (n int, text text)")
	const rows = 5000
	var data bytes.Buffer
	for n := range rows {
		fmt.Fprintf(&data, "%d\t%s\n", n, strings.Repeat("x", n%100))
	}
	for _, tt := range []struct {
		mode Mode
		rows int
		sees string
	}{
		{proxy.None, rows, ""},
		{Hold, rows, ""},
		{proxy.KillBefore, 0, "EOF"},
		{proxy.DropAnswer, rows, "EOF"},
		{proxy.HalfClose, rows, "EOF"},
		{proxy.KillAfterApply, rows, "EOF"},
		{proxy.KillAfterAnswer, rows, ""},
		{proxy.Late, 0, "EOF"}, // its data is lost
		{Locked, 0, "55P03"},
		{Terminated, 0, "57P01"},
	} {
		t.Run("in, "+string(tt.mode), func(t *testing.T) {
			exec(t, direct, "TRUNCATE t")
			p := &Proxy{Server: server.Address, Kill: func(Statement) {}, Meanwhile: func(Mode, Statement) {}}
			begin(t, p)
			c := connect(t, server.Through(p.Address(), "postgres"))
			p.Arm(Plan{Mode: tt.mode, At: 1})
			err := copyIn(t, c.PgConn(), data.Bytes())
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
		})
	}
	t.Run("as pgx does it, and out", func(t *testing.T) {
		exec(t, direct, "TRUNCATE t")
		p := &Proxy{Server: server.Address}
		begin(t, p)
		c := connect(t, server.Through(p.Address(), "postgres"))
		if _, err := c.PgConn().CopyFrom(t.Context(), bytes.NewReader(data.Bytes()), "COPY t FROM STDIN"); err != nil {
			t.Error(err)
		}
		var out bytes.Buffer
		if _, err := c.PgConn().CopyTo(t.Context(), &out, "COPY (SELECT * FROM t ORDER BY n) TO STDOUT"); err != nil || !bytes.Equal(out.Bytes(), data.Bytes()) {
			t.Errorf("%d bytes went in, %d came out: %v", data.Len(), out.Len(), err)
		}
		p.Arm(Plan{Mode: proxy.DropAnswer, At: 1})
		out.Reset()
		if _, err := c.PgConn().CopyTo(t.Context(), &out, "COPY (SELECT * FROM t ORDER BY n) TO STDOUT"); err == nil || out.Len() > 0 {
			t.Errorf("%d bytes came out: %v", out.Len(), err)
		}
	})
}

// copyIn waits to be asked for the data, as libpq does and pgx does not.
func copyIn(t *testing.T, c *pgconn.PgConn, data []byte) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c.Frontend().Send(&pgproto3.Query{String: "COPY t FROM STDIN"})
	if err := c.Frontend().Flush(); err != nil {
		return err
	}
	var refused error
	for {
		m, err := c.ReceiveMessage(ctx)
		if err != nil {
			return errors.Join(refused, err)
		}
		switch m := m.(type) {
		case *pgproto3.CopyInResponse:
			for len(data) > 0 {
				n := min(len(data), 1000)
				c.Frontend().Send(&pgproto3.CopyData{Data: data[:n]})
				data = data[n:]
			}
			c.Frontend().Send(&pgproto3.CopyDone{})
			if err := c.Frontend().Flush(); err != nil {
				return err
			}
		case *pgproto3.ErrorResponse:
			refused = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			return refused
		}
	}
}

func TestValuesLongerThanTheProxyKeeps(t *testing.T) {
	server := postgres.Start(t)
	direct := connect(t, server.DSN("postgres"))
	exec(t, direct, "CREATE TABLE t (text text); ALTER TABLE t ALTER text SET STORAGE EXTERNAL")
	p := &Proxy{Server: server.Address, LateBy: time.Millisecond}
	begin(t, p)
	const long, short = 20 << 20, 4 * limit // neither is kept
	for _, tt := range []struct {
		name   string
		mode   Mode
		size   int
		inText bool
		fail   bool
		rows   int
	}{
		{"passed in a parameter, and back", proxy.None, long, false, false, 1},
		{"passed in the text, and back", proxy.None, long, true, false, 1},
		{"never sent", proxy.DropBefore, long, true, true, 0},
		{"sent late", proxy.Late, short, true, true, 1},
		{"sent late in a parameter", proxy.Late, short, false, true, 1},
		{"refused", Serialize, short, false, true, 0},
		{"refused in the text", Serialize, short, true, true, 0},
		{"lost on the way back", proxy.DropAnswer, short, false, true, 1},
		{"cut on the way back", proxy.HalfClose, short, false, true, 1},
		{"held on the way back", Hold, short, false, false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			exec(t, direct, "TRUNCATE t")
			held := false
			p.Meanwhile = func(Mode, Statement) { held = true }
			c := connect(t, server.Through(p.Address(), "postgres"))
			p.Arm(Plan{Mode: tt.mode, Match: regexp.MustCompile("^INSERT")})
			value := strings.Repeat("0123456789abcdef", tt.size/16)
			sql, args := "INSERT INTO t VALUES ($1) RETURNING text", []any{value}
			if tt.inText {
				sql, args = "INSERT INTO t VALUES ('"+value+"') RETURNING text", nil
			}
			var got string
			err := c.QueryRow(t.Context(), sql, args...).Scan(&got)
			if failed := err != nil; failed != tt.fail {
				t.Errorf("the client saw %v", err)
			} else if !failed && got != value {
				t.Errorf("%d bytes came back, or others, want %d", len(got), len(value))
			}
			p.Settle()
			if got := count(t, direct, fmt.Sprintf("t WHERE text = repeat('0123456789abcdef', %d)", tt.size/16)); got != tt.rows {
				t.Errorf("%d rows, want %d", got, tt.rows)
			}
			if fired := p.Fired(); tt.mode != proxy.None && len(fired) != 1 {
				t.Errorf("fired %d times", len(fired))
			}
			for _, s := range p.Statements() {
				if len(s.Text) > limit {
					t.Errorf("%d bytes of a text are kept", len(s.Text))
				}
			}
			if held != (tt.mode == Hold) {
				t.Errorf("held: %t", held)
			}
		})
	}
}
