package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/nexus-platform/reconciler/failpoint"
)

// failpoints is the file with the daemon's plan.
func (l *lane) failpoints() string { return filepath.Join(l.dir, l.ns+".failpoint") }

// supervise starts each daemon that is not there, or has ended. Its error is how one ended by itself.
func (l *lane) supervise(env []string) error {
	for i, token := range l.tokens {
		l.mu.Lock()
		p := l.daemons[token]
		l.mu.Unlock()
		if p != nil && !p.ended() {
			continue
		}
		if p != nil {
			if err := p.verdict(); err != nil {
				return err
			}
			_ = os.Remove(l.failpoints()) // one death is planned, not one after the other
		}
		p, err := l.spawn(i, env)
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.daemons[token], l.starts = p, append(l.starts, p.started)
		l.mu.Unlock()
	}
	return nil
}

func (l *lane) spawn(i int, more []string) (*process, error) {
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + l.dir, "TMPDIR=" + l.dir, "GOGC=" + os.Getenv("GOGC"),
		failpoint.Variable + "=@" + l.failpoints(), failpoint.TraceVariable + "=" + l.failpoints() + ".trace",
	}
	if l.options.baseline {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		return spawn(self, env, l.log, baselineVerb, l.config(i), l.git.Dir("config"), l.ns)
	}
	binary, args := l.binary, []string{
		"run", "--kubeconfig", l.config(i), "--cache-dir", l.cache(i),
		"--health-address", "127.0.0.1:0", "--metrics-address", "0", "--log-level", "debug",
		"--system-namespace", l.system, "--watch-namespaces", l.ns,
		fmt.Sprintf("--leader-elect=%t", l.options.twins), "--lease-duration", lease.String(),
	}
	if l.options.disk != "" {
		if err := os.MkdirAll(l.cache(i), 0o755); err != nil {
			return nil, err
		}
		binary, args = onDisk(l.options.disk, l.cache(i), binary, args)
	}
	return spawn(binary, append(env, more...), l.log, args...)
}

// halt ends the daemons for good.
func (l *lane) halt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.daemons {
		p.signal("CONT")
		p.kill()
	}
}

// verdict is what is wrong with how a daemon ran.
func (l *lane) verdict() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	for _, p := range l.daemons {
		err = errors.Join(err, p.verdict())
	}
	return err
}
