package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/nexus-platform/reconciler/gitsource/internal/limit"
)

// watch ends a conversation whose present phase takes too long. A server that sends one byte every
// few seconds never times out between two bytes; it does here.
type watch struct {
	limit  time.Duration
	url    string
	cancel context.CancelCauseFunc
	timer  *time.Timer

	mu    sync.Mutex
	phase string
}

// newWatch starts with the phase "connect".
func newWatch(ctx context.Context, url string, limit time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{limit: limit, url: url, cancel: cancel, phase: "connect"}
	w.timer = time.AfterFunc(limit, w.fire)
	return ctx, w
}

func (w *watch) fire() {
	w.mu.Lock()
	phase := w.phase
	w.mu.Unlock()
	w.cancel(&UnreachableError{URL: w.url, Err: fmt.Errorf("%s took longer than %s", phase, w.limit)})
}

// next begins another phase.
func (w *watch) next(phase string) {
	w.mu.Lock()
	w.phase = phase
	w.mu.Unlock()
	w.timer.Reset(w.limit)
}

// stop ends the watch and everything that hangs on its context.
func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// progressBytes is how much of a pack must arrive within each phase limit.
const progressBytes = 32 << 10

// packReader hands out a pack, counted and watched.
type packReader struct {
	from    io.Reader
	watch   *watch
	explain func(error) error
	close   func()
	max     int64
	total   int64
	since   int64 // bytes since the watch was last reset
}

func (p *packReader) Read(b []byte) (int, error) {
	n, err := p.from.Read(b)
	p.total += int64(n)
	p.since += int64(n)
	if p.total > p.max {
		return 0, &limit.Error{Path: "pack", Limit: "FetchBytes", Max: p.max}
	}
	if p.since >= progressBytes || p.total == int64(n) && n > 0 {
		p.since = 0
		p.watch.next("receive the pack")
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = p.explain(err)
	}
	return n, err
}

// Close ends the conversation.
func (p *packReader) Close() error {
	p.close()
	p.watch.stop()
	return nil
}
