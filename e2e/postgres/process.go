package postgres

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// process is a postmaster, PostgreSQL's first process.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; read after done
}

// spawn starts a postmaster that writes its log at the end of a file.
func spawn(cmd *exec.Cmd, log string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = f, f
	// SIGQUIT takes the sessions along; after SIGKILL each would run on until it waits for something.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	started := make(chan error)
	go func() {
		// The kernel takes the thread that started a process for its parent: it has to live as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	return p, <-started
}

// stop asks for a fast shutdown.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGINT) // it may have ended by itself
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		return errSlow
	}
}

// kill ends the postmaster and the processes that it began: each has a process group of its own, and as long as one of them lives, the
// data cannot be served again.
func (p *process) kill() error {
	// While it is stopped it begins no more, and does not reap those that end, so that their numbers stay theirs.
	_ = p.cmd.Process.Signal(syscall.SIGSTOP) // it may have ended by itself
	err := killChildren(p.cmd.Process.Pid)
	_ = p.cmd.Process.Kill()
	select {
	case <-p.done:
		return err
	case <-time.After(patience):
		return errSlow
	}
}

// killChildren returns when they have ended.
func killChildren(parent int) error {
	late := time.After(patience)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		living, err := children(parent)
		if err != nil || len(living) == 0 {
			return err
		}
		for _, child := range living {
			if err := syscall.Kill(child, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return err
			}
		}
		select {
		case <-look.C:
		case <-late:
			return errSlow
		}
	}
}

// children are the processes that a process began and that live.
func children(parent int) (living []int, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		// 17 (name, which may hold anything) S 1 …: number, name, state, parent
		fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(fields) < 2 || string(fields[0]) == "Z" || string(fields[1]) != strconv.Itoa(parent) {
			continue
		}
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		living = append(living, child)
	}
	return living, nil
}
