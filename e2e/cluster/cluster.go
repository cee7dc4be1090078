// Package cluster starts a real Kubernetes control plane as a child process, for the demo and for tests.
package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ErrForeign is returned where a cluster that was only attached to would have to be stopped or started.
var ErrForeign = errors.New("the cluster was not started by this process")

const (
	startLimit = 3 * time.Minute  // loaded machines included; an idle one needs five seconds
	stopLimit  = 30 * time.Second // then it is killed
)

// Options say how Start starts.
type Options struct {
	Dir      string    // state: etcd data, PKI, kubeconfig, log; empty: a temporary one, removed by Stop
	Args     []string  // more flags for "devcluster up", for instance --pod-ready-after=1s
	Progress io.Writer // plain lines while the binary is built and the cluster starts; nil: none
}

// Cluster is a control plane: etcd, kube-apiserver, controller manager, scheduler and a simulated kubelet in one child process.
// It ends with this process, however that ends.
type Cluster struct {
	Kubeconfig string // path of the administrator's kubeconfig; stays, and stays valid, while the cluster is halted
	Dir        string
	Address    string // host:port of the API server; the same after Restart

	binary    string
	args      []string
	temporary bool
	foreign   bool

	mu    sync.Mutex // held through starts and stops
	child *child     // nil: not running
}

// Start builds devcluster if need be (see Binary), starts it and returns when nodes are ready and pods can be made.
// A Dir that was used before gives its data and its address back. ctx bounds the start alone.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	binary, err := Binary(ctx, o.Progress)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: o.Dir, binary: binary, args: o.Args}
	if c.Dir == "" {
		c.temporary = true
		if c.Dir, err = os.MkdirTemp("", "nexus-cluster-"); err != nil {
			return nil, fmt.Errorf("start cluster: %w", err)
		}
	}
	begin := time.Now()
	if err := c.Restart(ctx); err != nil {
		if c.temporary {
			err = errors.Join(err, os.RemoveAll(c.Dir))
		}
		return nil, err
	}
	if o.Progress != nil {
		fmt.Fprintf(o.Progress, "control plane at https://%s, ready after %.1fs\n", c.Address, time.Since(begin).Seconds())
	}
	return c, nil
}

// Attach returns a cluster that somebody else runs. It cannot be halted, killed or restarted, and Stop leaves it alone.
func Attach(kubeconfig string) (*Cluster, error) {
	path, err := filepath.Abs(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("attach to cluster %s: %w", kubeconfig, err)
	}
	c := &Cluster{Kubeconfig: path, Dir: filepath.Dir(path), foreign: true}
	cfg, err := c.Config()
	if err != nil {
		return nil, err
	}
	c.Address = strings.TrimPrefix(cfg.Host, "https://")
	return c, nil
}

// Config returns the administrator's client configuration, without client-side throttling.
func (c *Cluster) Config() (*rest.Config, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig of the cluster: %w", err)
	}
	cfg.QPS = -1
	return cfg, nil
}

// Restart starts a halted or killed cluster again, with its data and on its address.
func (c *Cluster) Restart(ctx context.Context) error {
	if c.foreign {
		return fmt.Errorf("restart cluster: %w", ErrForeign)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.child != nil && !c.child.ended() {
		return errors.New("restart cluster: it is running; halt it first")
	}
	args := []string{"up", "--with-parent", "--dir", c.Dir}
	if c.temporary {
		args = append(args, "--ephemeral")
	}
	if c.Address != "" {
		args = append(args, "--addr", c.Address)
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("start cluster: %w", err)
	}
	child, err := spawn(c.binary, append(args, c.args...), filepath.Join(c.Dir, "log"))
	if err != nil {
		return fmt.Errorf("start cluster: %w", err)
	}
	if c.Kubeconfig, err = child.ready(ctx); err != nil {
		err = errors.Join(err, child.end(stopLimit))
		return fmt.Errorf("start cluster: %w\n%s", err, tail(filepath.Join(c.Dir, "log")))
	}
	address, err := os.ReadFile(filepath.Join(c.Dir, "address"))
	if err != nil {
		return fmt.Errorf("start cluster: %w", errors.Join(err, child.end(stopLimit)))
	}
	c.Address, c.child = strings.TrimSpace(string(address)), child
	return nil
}

// Halt stops the process and waits for its end. Data and address are kept for Restart. Halting a halted cluster does nothing.
func (c *Cluster) Halt() error { return c.finish(stopLimit) }

// Kill ends the process as a crash of the machine's would: SIGKILL. Data and address are kept for Restart.
func (c *Cluster) Kill() error { return c.finish(0) }

// Stop ends the cluster for good, waits for it, and removes a temporary Dir.
func (c *Cluster) Stop() error {
	if c.foreign {
		return nil
	}
	err := c.finish(stopLimit)
	if c.temporary {
		err = errors.Join(err, os.RemoveAll(c.Dir))
	}
	return err
}

func (c *Cluster) finish(grace time.Duration) error {
	if c.foreign {
		return fmt.Errorf("stop cluster: %w", ErrForeign)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.child == nil {
		return nil
	}
	err := c.child.end(grace)
	c.child = nil
	if err != nil {
		return fmt.Errorf("stop cluster: %w\n%s", err, tail(filepath.Join(c.Dir, "log")))
	}
	return nil
}

// child is a running devcluster process.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer     // devcluster stops when this end is gone, which the kernel sees to
	path  chan string   // the kubeconfig's path, once the cluster is usable
	done  chan struct{} // closed when the process has been waited for
	err   error         // of Wait; read after done
}

func spawn(binary string, args []string, logPath string) (*child, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c := &child{cmd: exec.Command(binary, args...), path: make(chan string, 1), done: make(chan struct{})}
	c.cmd.Stderr = log
	// A group of its own: Ctrl-C reaches this process alone, which may have work left to do with the cluster.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go c.follow(stdout)
	return c, nil
}

// follow reads what the process says until it ends, then waits for it.
func (c *child) follow(stdout io.Reader) {
	defer close(c.done)
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if path, ok := strings.CutPrefix(lines.Text(), "kubeconfig: "); ok {
			c.path <- path
		}
	}
	c.err = c.cmd.Wait()
}

func (c *child) ready(ctx context.Context) (kubeconfig string, err error) {
	select {
	case path := <-c.path:
		return path, nil
	case <-c.done:
		return "", fmt.Errorf("devcluster ended while starting: %w", c.err)
	case <-ctx.Done():
		return "", fmt.Errorf("devcluster is not ready: %w", context.Cause(ctx))
	}
}

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// end asks the process to stop, kills it after grace (at once: 0) and waits for its end.
func (c *child) end(grace time.Duration) error {
	if grace > 0 {
		// Fails only when the process has ended, which the select sees.
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-c.done:
			return c.err
		case <-time.After(grace):
		}
	}
	_ = c.cmd.Process.Kill()
	<-c.done
	if grace > 0 {
		return fmt.Errorf("devcluster had to be killed: it did not stop within %s", grace)
	}
	return nil
}

// tail returns the last lines of the log, for an error that a person reads.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return fmt.Sprintf("end of %s:\n%s", path, strings.Join(lines[max(0, len(lines)-15):], "\n"))
}
