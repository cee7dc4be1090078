package render

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nexus-platform/reconciler/render/internal/sandbox"
)

const attackVerb = "__attack"

// attack locks this process in and tries what a commit that took it over would try. It prints a line per attempt.
func attack() int {
	if err := sandbox.Enter(); err != nil {
		fmt.Println(err)
		return 1
	}
	try := func(what string, err error) {
		switch {
		case err == nil:
			fmt.Println(what, "WORKS")
		case errors.Is(err, syscall.EPERM):
			fmt.Println(what, "EPERM")
		default:
			fmt.Println(what, "refused")
		}
	}
	attempt := func() {
		_, err := os.Open("/etc/passwd")
		try("open", err)
		_, err = os.OpenFile("x", os.O_CREATE|os.O_WRONLY, 0o600)
		try("create", err)
		try("mkdir", os.Mkdir("y", 0o700))
		try("unlink", os.Remove("own"))
		try("exec", exec.Command("/bin/true").Run())
		try("execve", syscall.Exec("/bin/true", []string{"true"}, nil))
		_, err = net.Dial("tcp", "127.0.0.1:1")
		try("tcp", err)
		_, err = net.Dial("udp", "127.0.0.1:1")
		try("udp", err)
		_, err = net.Dial("unix", "/run/x")
		try("unix", err)
		_, _, errno := syscall.RawSyscall(syscall.SYS_PTRACE, 16, uintptr(os.Getppid()), 0)
		try("ptrace", orNil(errno))
		try("kill", syscall.Kill(os.Getppid(), 0))
		_, _, errno = syscall.RawSyscall(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0)
		try("fork", orNil(errno))
		_, err = syscall.Mmap(-1, 0, 4096, syscall.PROT_READ|syscall.PROT_EXEC, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		try("code", err)
		try("chdir", os.Chdir("/"))
		try("limits", syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 100, Max: 100}))
	}
	attempt()
	// Every thread is locked in: those that were there before, and new ones.
	var threads sync.WaitGroup
	var mu sync.Mutex
	for range 8 {
		threads.Go(func() {
			runtime.LockOSThread()
			mu.Lock()
			defer mu.Unlock()
			if _, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0); !errors.Is(err, syscall.EPERM) {
				fmt.Println("a thread has a socket:", err)
			}
		})
	}
	threads.Wait()
	return 0
}

func orNil(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func TestTheSandboxRefusesEverythingButComputing(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, attackVerb)
	cmd.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cmd.Dir, "own"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := ""
	for _, what := range []string{"open", "create", "mkdir", "unlink", "exec", "execve", "tcp", "udp", "unix", "ptrace", "kill", "fork", "code", "chdir", "limits"} {
		want += what + " EPERM\n"
	}
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if left, _ := os.ReadDir(cmd.Dir); len(left) != 1 {
		t.Errorf("it left files: %v", left)
	}
}

func TestCheckFindsTheSandboxInForce(t *testing.T) {
	if err := Check(); err != nil {
		t.Error(err)
	}
}

func TestAProcessThatIsNotLockedInGetsNothingToRead(t *testing.T) {
	for name, command := range map[string][]string{
		"it dies":                {"/bin/false"},
		"it says nothing useful": {"/bin/echo", "hello, this is not a frame, but it is long enough for one"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := &counting{Tree: plain("").tree(t)}
			_, err := (&Renderer{Command: command}).Render(t.Context(), Request{Tree: tree, Path: "app"})
			if e := (*SandboxError)(nil); !errors.As(err, &e) {
				t.Errorf("the error is %T: %v", err, err)
			}
			if tree.reads != 0 {
				t.Errorf("it read %d files", tree.reads)
			}
		})
	}
}

// counting counts the files that are read.
type counting struct {
	Tree
	reads int
}

func (c *counting) ReadFile(name string) ([]byte, error) {
	c.reads++
	return c.Tree.ReadFile(name)
}

// The scan finds references before kustomize runs; this shows that even if it overlooked one, nothing would come of it.
func TestTheChildReachesNoNetworkWhereTheScanIsBlind(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reached := make(chan struct{}, 10)
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached <- struct{}{} })}
	go server.Serve(listener)
	defer server.Close()
	// A patch writes the URL into a plugin's configuration after the scan has read it.
	f := plain("transformers: [plugins]\n").with(files{
		"app/plugins/kustomization.yaml": "resources: [p.yaml]\npatches: [{path: patch.yaml}]\n",
		"app/plugins/p.yaml":             "apiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: p}\npath: here.yaml\n",
		"app/here.yaml":                  configMap("cm"),
		"app/plugins/patch.yaml":         "apiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: p}\npath: http://" + listener.Addr().String() + "/x.yaml\n",
	})
	mustRefuse[*BuildError](t, f)
	select {
	case <-reached:
		t.Error("the server was reached")
	default:
	}
}

func TestARenderEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the daemon stops")
	tree := &blocking{Tree: plain("").tree(t), blocked: make(chan struct{}), release: make(chan struct{})}
	defer close(tree.release)
	go func() {
		<-tree.blocked
		cancel(why)
		tree.release <- struct{}{}
	}()
	_, err := (&Renderer{Command: childCommand}).Render(ctx, Request{Tree: tree, Path: "app"})
	if !errors.Is(err, why) {
		t.Errorf("the error is %v", err)
	}
}

// blocking stops at the first file until it is released.
type blocking struct {
	Tree
	once             sync.Once
	blocked, release chan struct{}
}

func (b *blocking) ReadFile(name string) ([]byte, error) {
	b.once.Do(func() {
		close(b.blocked)
		<-b.release
	})
	return b.Tree.ReadFile(name)
}

func TestNoRenderProcessOutlivesItsRender(t *testing.T) {
	plain("").mustRender(t)
	var status syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
		t.Errorf("a child is left: pid %d, %v", pid, err)
	}
}
