// Package postgres runs a real PostgreSQL server on a loopback address for tests, from Debian's binaries.
package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// patience is for a machine that is busy: a server takes a second.
const patience = 2 * time.Minute

// Server is a PostgreSQL server with data of its own. It ends with the test, or with the process that runs it, however that ends.
type Server struct {
	Address string // host:port, the same after every start

	tb       testing.TB
	bin      string // folder of its programs
	dir      string
	password string
	as       *syscall.Credential // nil: as we are
	process  *process            // nil: it does not run
}

// Start makes a server and starts it.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s, err := prepare()
	if err != nil {
		tb.Fatal(err)
	}
	s.tb = tb
	tb.Cleanup(func() {
		s.Stop()
		if tb.Failed() {
			tb.Logf("PostgreSQL's log:\n%s", s.said())
		}
		if err := os.RemoveAll(s.dir); err != nil {
			tb.Error(err)
		}
	})
	if err := s.initialize(); err != nil {
		tb.Fatal(err)
	}
	s.Start()
	return s
}

// prepare finds all that a server needs.
func prepare() (*Server, error) {
	bin, err := newest("/usr/lib/postgresql")
	if err != nil {
		return nil, err
	}
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	// Not the test's own folder: its parent is closed to the user that the server runs as.
	dir, err := os.MkdirTemp("", "nexus-postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir, password: rand.Text(), as: as}
	return s, s.give(dir)
}

// give makes a file the server's own.
func (s *Server) give(path string) error {
	if s.as == nil {
		return nil
	}
	return os.Chown(path, int(s.as.Uid), int(s.as.Gid))
}

// newest is the folder of the newest version's programs.
func newest(root string) (string, error) {
	found, err := filepath.Glob(filepath.Join(root, "*", "bin", "postgres"))
	if err != nil {
		return "", err
	}
	best, version := "", -1.0
	for _, path := range found {
		if v, err := strconv.ParseFloat(filepath.Base(filepath.Dir(filepath.Dir(path))), 64); err == nil && v > version { // 9.6, 15
			best, version = filepath.Dir(path), v
		}
	}
	if best == "" {
		return "", fmt.Errorf("find PostgreSQL's server under %s: run hack/packages", root)
	}
	return best, nil
}

// unprivileged is whom the server runs as where we are root, which PostgreSQL refuses; nil: as we are.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// command is one of the server's programs, with nothing of our environment: PGPORT and its like would steer it.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(s.bin, name), args...)
	c.Dir = s.dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=" + s.dir}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.as, Setpgid: true}
	return c
}

// initialize makes the data of a new server, and chooses its port.
func (s *Server) initialize() error {
	password := filepath.Join(s.dir, "password")
	if err := os.WriteFile(password, []byte(s.password+"\n"), 0o600); err != nil {
		return err
	}
	if err := s.give(password); err != nil {
		return err
	}
	c := s.command("initdb", "--pgdata", s.data(), "--username", "postgres", "--pwfile", password, "--auth", "scram-sha-256",
		"--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.Address = l.Addr().String()
	return l.Close()
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }
func (s *Server) log() string  { return filepath.Join(s.dir, "log") }

// DSN connects to a database as superuser.
func (s *Server) DSN(database string) string { return s.Through(s.Address, database) }

// Through is DSN by way of somebody who listens on address and passes on to the server.
func (s *Server) Through(address, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("postgres", s.password), Host: address, Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Start starts the server, with the data that it had, and returns when it answers.
func (s *Server) Start() {
	s.tb.Helper()
	if s.process != nil {
		return
	}
	_, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		s.tb.Fatal(err)
	}
	// Shared memory in files of the data: what lies elsewhere outlives a server that is killed.
	s.process, err = spawn(s.command("postgres", "-D", s.data(), "-p", port,
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "dynamic_shared_memory_type=mmap",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=16MB", "-c", "log_line_prefix=%m [%p] %a "), s.log())
	if err != nil {
		s.tb.Fatalf("start PostgreSQL: %v", err)
	}
	if err := s.ready(); err != nil {
		s.tb.Fatalf("start PostgreSQL on %s: %v", s.Address, err)
	}
}

// said is the end of the server's log.
func (s *Server) said() []byte {
	log, err := os.ReadFile(s.log())
	if err != nil {
		return []byte(err.Error())
	}
	return log[max(0, len(log)-16<<10):]
}

// ready waits until the server answers.
func (s *Server) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		c, err := pgconn.Connect(ctx, s.DSN("postgres"))
		if err == nil {
			return c.Close(ctx)
		}
		select {
		case <-s.process.done:
			return fmt.Errorf("it ended: %w", s.process.err)
		case <-ctx.Done():
			return err
		case <-retry.C:
		}
	}
}

// Stop ends the server as a careful administrator does: sessions are cut off, what is done is kept. Twice does no harm.
func (s *Server) Stop() {
	s.tb.Helper()
	if s.process == nil {
		return
	}
	if err := s.process.stop(); err != nil {
		s.tb.Errorf("stop PostgreSQL: %v", err)
		s.Kill()
	}
	s.process = nil
}

// Restart is Stop and Start.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Stop()
	s.Start()
}

// Kill ends the server with all its processes at once, as a crash does. Twice does no harm.
func (s *Server) Kill() {
	s.tb.Helper()
	if s.process == nil {
		return
	}
	if err := s.process.kill(); err != nil {
		s.tb.Errorf("kill PostgreSQL: %v", err)
	}
	s.process = nil
}

// errSlow is a server that does not do what it is told.
var errSlow = errors.New("it still runs after " + patience.String())
