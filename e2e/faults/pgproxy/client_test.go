package pgproxy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
)

// patience is for a machine that is busy.
const patience = 2 * time.Minute

func count(t *testing.T, c *pgx.Conn, table string) (n int) {
	t.Helper()
	if err := c.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Error(err)
	}
	return n
}

// lines writes statements as "1 INSERT 0 1: INSERT … (fault)": number, answer, text.
func lines(statements []Statement) (all []string) {
	for _, s := range statements {
		answer := s.Tag
		switch {
		case s.Code != "":
			answer = strings.TrimSpace(answer + " " + s.Code)
		case answer == "":
			answer = "-"
		}
		line := fmt.Sprintf("%d %s: %s", s.N, answer, s.Text)
		if s.Fault != proxy.None {
			line += fmt.Sprintf(" (%s)", s.Fault)
		}
		if s.Late && s.Fault != proxy.Late {
			line += " (delivered late)"
		}
		all = append(all, line)
	}
	return all
}

// begin serves until the test ends.
func begin(t *testing.T, p *Proxy) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func exec(t *testing.T, c *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%.100s: %v", sql, err)
	}
}

// eventually waits until a session of the server is as described.
func eventually(t *testing.T, c *pgx.Conn, condition string) {
	t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for count(t, c, "pg_stat_activity WHERE pid <> pg_backend_pid() AND "+condition) == 0 {
		select {
		case <-deadline:
			t.Fatalf("there is no session with %s", condition)
		case <-look.C:
		}
	}
}
