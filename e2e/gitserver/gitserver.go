// Package gitserver runs a real Git server on a loopback address for tests: Git's own http-backend behind net/http.
package gitserver

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// Server serves the repositories under one directory. It ends with the test.
type Server struct {
	tb       testing.TB
	root     string
	server   *httptest.Server
	login    atomic.Pointer[[2]string]
	fault    atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	v0       atomic.Bool
	requests atomic.Int64
}

// Start serves over http.
func Start(tb testing.TB) *Server {
	s := prepare(tb)
	s.server.Start()
	return s
}

// StartTLS serves over https with a certificate of its own; see CA.
func StartTLS(tb testing.TB) *Server {
	s := prepare(tb)
	s.server.StartTLS()
	return s
}

func prepare(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{tb: tb, root: filepath.Join(tb.TempDir(), "repositories")}
	if err := os.MkdirAll(s.root, 0o700); err != nil {
		tb.Fatal(err)
	}
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		tb.Fatalf("find git: %v", err)
	}
	backend := filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(backend, w, r) }))
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	tb.Cleanup(s.server.Close)
	return s
}

func (s *Server) serve(backend string, w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	if fault := s.fault.Load(); fault != nil && (*fault)(w, r) {
		return
	}
	if login := s.login.Load(); login != nil {
		if user, password, ok := r.BasicAuth(); !ok || user != login[0] || password != login[1] {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
	}
	env := append(environment(), "GIT_PROJECT_ROOT="+s.root, "GIT_HTTP_EXPORT_ALL=1")
	if !s.v0.Load() {
		env = append(env, "GIT_PROTOCOL="+r.Header.Get("Git-Protocol"))
	}
	// A client that hangs up is what many tests are about: nothing to tell.
	(&cgi.Handler{Path: backend, Env: env, Stderr: io.Discard, Logger: log.New(io.Discard, "", 0)}).ServeHTTP(w, r)
}

// environment keeps the user's and the machine's configuration away from git.
func environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0", "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0",
	}
}

// URL is where the server serves a repository.
func (s *Server) URL(name string) string { return s.server.URL + "/" + name + ".git" }

// Dir is the bare repository on disk.
func (s *Server) Dir(name string) string { return filepath.Join(s.root, name+".git") }

// CA is the certificate to trust, in PEM, of a server made by StartTLS.
func (s *Server) CA() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw})
}

// RequireLogin lets nobody else in from now on. An empty user takes that back.
func (s *Server) RequireLogin(user, password string) {
	if user == "" {
		s.login.Store(nil)
		return
	}
	s.login.Store(&[2]string{user, password})
}

// Fault is asked first about each request from now on; if it returns true, it has answered. nil takes it back.
func (s *Server) Fault(f func(http.ResponseWriter, *http.Request) bool) {
	if f == nil {
		s.fault.Store(nil)
		return
	}
	s.fault.Store(&f)
}

// OnlyV0 makes the server speak version 0 of Git's protocol alone.
func (s *Server) OnlyV0() { s.v0.Store(true) }

// CloseConnections hangs up on everybody.
func (s *Server) CloseConnections() { s.server.CloseClientConnections() }

// Requests is the number of requests so far.
func (s *Server) Requests() int64 { return s.requests.Load() }

// Init makes an empty repository with the branch main, and a work tree to fill it from.
func (s *Server) Init(name string) *Repo {
	s.tb.Helper()
	r := &Repo{tb: s.tb, Dir: filepath.Join(s.tb.TempDir(), filepath.Base(name))}
	bare := s.Dir(name)
	if err := os.MkdirAll(r.Dir, 0o700); err != nil {
		s.tb.Fatal(err)
	}
	r.Git("init", "-q", "--template=", "--bare", "-b", "main", bare)
	r.Git("init", "-q", "--template=", "-b", "main")
	s.configure(bare, "[receive]\n\tdenyDeleteCurrent = ignore\n[gc]\n\tauto = 0\n")
	s.configure(filepath.Join(r.Dir, ".git"), "[remote \"origin\"]\n\turl = "+bare+"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"+
		"[user]\n\tname = Jane Doe\n\temail = jane@example.com\n[gc]\n\tauto = 0\n[core]\n\tautocrlf = false\n\tprotectNTFS = false\n\tfsync = none\n")
	return r
}

// configure appends to a repository's configuration: one git config a setting would be most of a test's time.
func (s *Server) configure(dir, lines string) {
	s.tb.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "config"), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.tb.Fatal(err)
	}
	_, err = f.WriteString(lines)
	if err := errors.Join(err, f.Close()); err != nil {
		s.tb.Fatal(err)
	}
}

// Repo is a work tree whose origin is a repository of the server.
type Repo struct {
	tb  testing.TB
	Dir string
	Env []string // for the git command, beside what isolates it
}

// Write writes a file.
func (r *Repo) Write(path, content string) {
	r.tb.Helper()
	name := filepath.Join(r.Dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		r.tb.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		r.tb.Fatal(err)
	}
}

// Commit commits all that was changed, even nothing, and returns the hash.
func (r *Repo) Commit(message string) string {
	r.tb.Helper()
	r.Git("add", "-A")
	r.Git("commit", "-q", "--allow-empty", "--allow-empty-message", "-m", message)
	return r.Git("rev-parse", "HEAD")
}

// Push pushes the present branch.
func (r *Repo) Push() {
	r.tb.Helper()
	r.Git("push", "-q", "origin", "HEAD")
}

// Release writes files (pairs of path and content), commits, pushes and returns the hash.
func (r *Repo) Release(message string, files ...string) string {
	r.tb.Helper()
	for i := 0; i+1 < len(files); i += 2 {
		r.Write(files[i], files[i+1])
	}
	hash := r.Commit(message)
	r.Push()
	return hash
}

// Git runs git in the work tree and returns what it prints, without the last line's end.
func (r *Repo) Git(args ...string) string {
	r.tb.Helper()
	return r.GitInput("", args...)
}

// GitInput is Git with something on its standard input.
func (r *Repo) GitInput(input string, args ...string) string {
	r.tb.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = r.Dir, append(environment(), r.Env...)
	cmd.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.tb.Fatalf("git %s: %v\n%s", fmt.Sprint(args), err, stderr.String())
	}
	return strings.TrimSuffix(string(out), "\n")
}
