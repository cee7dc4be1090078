package postgres

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestDataOutlivesWhatHappensToTheServer(t *testing.T) {
	s := Start(t)
	run(t, s, "CREATE TABLE t (n int)")
	for i, tt := range []struct {
		name string
		do   func()
	}{
		{"it is stopped", s.Stop},
		{"it is stopped twice", func() { s.Stop(); s.Stop() }},
		{"it is started twice", s.Start},
		{"it is restarted", s.Restart},
		{"it is killed", s.Kill},
		{"it is killed twice", func() { s.Kill(); s.Kill() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, s, fmt.Sprintf("INSERT INTO t VALUES (%d)", i))
			address := s.Address
			tt.do()
			s.Start()
			if got := count(t, s, "SELECT count(*) FROM t"); got != i+1 {
				t.Errorf("%d rows, want %d", got, i+1)
			}
			if s.Address != address {
				t.Errorf("it listens on %s, before on %s", s.Address, address)
			}
		})
	}
}

func TestAKillIsACrashEvenForABusySession(t *testing.T) {
	s := Start(t)
	run(t, s, "CREATE TABLE t (n int)")
	c := connect(t, s)
	if _, err := c.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "SELECT count(*) FROM generate_series(1, 1000000000000)")
		ended <- err
	}()
	eventually(t, func() error {
		if n := count(t, s, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series(1%' AND pid <> pg_backend_pid()"); n != 1 {
			return fmt.Errorf("%d sessions are busy", n)
		}
		return nil
	})
	s.Kill()
	if err := <-ended; err == nil {
		t.Error("the session did not notice")
	}
	s.Start()
	if got := count(t, s, "SELECT count(*) FROM t"); got != 0 {
		t.Errorf("%d rows of a transaction that was open", got)
	}
	log, err := os.ReadFile(s.log())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "database system was interrupted") {
		t.Error("the server did not start as after a crash")
	}
}

// parentVariable makes this test binary the process that is killed below.
const parentVariable = "NEXUS_TEST_POSTGRES_PARENT"

func TestAServerEndsWithItsParentHoweverThatDies(t *testing.T) {
	if os.Getenv(parentVariable) != "" {
		s := Start(t)
		fmt.Printf("postgres %d %s\n", s.process.cmd.Process.Pid, s.dir)
		<-t.Context().Done() // killed before
	}
	parent := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	parent.Env = append(os.Environ(), parentVariable+"=1")
	parent.Stderr = os.Stderr
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer parent.Wait()
	defer parent.Process.Kill()
	var pid, dir string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) == 3 && words[0] == "postgres" {
			pid, dir = words[1], words[2]
			break
		}
	}
	if dir == "" {
		t.Fatal("the parent did not start a server")
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if name, err := os.ReadFile(filepath.Join("/proc", pid, "comm")); err == nil && string(name) == "postgres\n" {
			if stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat")); err == nil && !strings.Contains(string(stat), ") Z ") {
				return fmt.Errorf("the server %s still runs", pid)
			}
		}
		return nil
	})
}

func TestTheNewestVersionServes(t *testing.T) {
	for _, tt := range []struct{ name, versions, want, err string }{
		{"one", "15", "15", ""},
		{"numbers are compared, not letters", "9.6 15 8.4", "15", ""},
		{"what is no version is left alone", "15 old 13", "15", ""},
		{"none", "", "", "run hack/packages"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for _, v := range strings.Fields(tt.versions) {
				if err := os.MkdirAll(filepath.Join(root, v, "bin"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root, v, "bin", "postgres"), nil, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			got, err := newest(root)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if want := filepath.Join(root, tt.want, "bin"); err != nil || got != want {
				t.Errorf("%s %v, want %s", got, err, want)
			}
		})
	}
}

func connect(t *testing.T, s *Server) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), s.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func run(t *testing.T, s *Server, sql string) {
	t.Helper()
	if _, err := connect(t, s).Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, s *Server, sql string) (n int) {
	t.Helper()
	if err := connect(t, s).QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func eventually(t *testing.T, condition func() error) {
	t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-look.C:
		}
	}
}
