package cluster

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// packages is about how many packages a build with an empty Go build cache compiles.
const packages = 2500

// meter reads what "go build -v" says: the import path of each package that it compiles, and complaints.
type meter struct {
	begin time.Time

	mu       sync.Mutex
	rest     []byte // the beginning of a line
	compiled int
	other    []string
}

// Write takes a piece of the go command's standard error.
func (m *meter) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rest = append(m.rest, p...)
	for {
		line, rest, ok := bytes.Cut(m.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		m.rest = rest
		switch text := string(line); {
		case strings.HasPrefix(text, "go: downloading "):
		case strings.ContainsAny(text, " :#\t"):
			m.other = append(m.other, text)
		default:
			m.compiled++
		}
	}
}

func (m *meter) elapsed() time.Duration { return time.Since(m.begin).Round(time.Second) }

// complaints returns what was said beside the names of packages, at most the last twenty lines.
func (m *meter) complaints() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(append(m.other[max(0, len(m.other)-20):], string(m.rest)), "\n")
}

// report writes a line to w at each interval until stop is called.
func (m *meter) report(w io.Writer, interval time.Duration) (stop func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				m.mu.Lock()
				compiled := m.compiled
				m.mu.Unlock()
				fmt.Fprintf(w, "building devcluster: %s, %d packages compiled of at most %d\n", m.elapsed(), compiled, max(packages, compiled))
			}
		}
	}()
	return func() {
		close(done)
		<-gone
	}
}
