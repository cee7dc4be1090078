package faults

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is a daemon.
type process struct {
	cmd     *exec.Cmd
	log     string
	started time.Time
	done    chan struct{}
	err     error // of Wait; read after done
}

// spawn starts a daemon that writes its log at the end of a file.
func spawn(binary string, env []string, log string, args ...string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &process{cmd: exec.Command(binary, args...), log: log, done: make(chan struct{}), started: time.Now()}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = f, f, env
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	return p, nil
}

// kill ends it as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.done
}

func (p *process) signal(name string) {
	_ = p.cmd.Process.Signal(map[string]syscall.Signal{"STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT, "TERM": syscall.SIGTERM}[name])
}

// stop asks it to end and says how long that took.
func (p *process) stop(limit time.Duration) (time.Duration, error) {
	began := time.Now()
	p.signal("TERM")
	select {
	case <-p.done:
		return time.Since(began), nil
	case <-time.After(limit):
		return limit, fmt.Errorf("the daemon did not stop within %s", limit)
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// verdict is what is wrong with how it ran or ended; that it was killed is not.
func (p *process) verdict() error {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err
	}
	if i := bytes.Index(b, []byte("panic")); i >= 0 {
		return fmt.Errorf("a panic in the daemon:\n%.4000s", b[i:])
	}
	var exit *exec.ExitError
	if p.ended() && errors.As(p.err, &exit) && exit.Exited() {
		return fmt.Errorf("the daemon ended by itself: %w\n%s", p.err, tail(p.log, 20))
	}
	return nil
}

func tail(file string, lines int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
