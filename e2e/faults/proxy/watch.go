package proxy

import (
	"net/http"
	"sync"
)

// gate holds watches back.
type gate struct {
	open chan struct{}
	lose bool // what came meanwhile is lost, and the watches end as expired
}

// Vanish makes everybody's connections break and no request be answered, until the function that it returns is called.
func (p *Proxy) Vanish() (back func()) {
	p.mu.Lock()
	p.away = true
	p.mu.Unlock()
	go p.CloseConnections()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.away = false
	}
}

// HoldWatches lets no watch tell anything until the function that it returns is called; with lose, what they would have told is lost.
func (p *Proxy) HoldWatches(lose bool) (open func()) {
	g := &gate{open: make(chan struct{}), lose: lose}
	p.mu.Lock()
	p.gate = g
	p.mu.Unlock()
	return sync.OnceFunc(func() {
		p.mu.Lock()
		p.gate = nil
		p.mu.Unlock()
		close(g.open)
	})
}

// watch passes a watch on, through whatever gate there is at the time.
func (p *Proxy) watch(w http.ResponseWriter, r *http.Request, next http.Handler) {
	next.ServeHTTP(&gated{ResponseWriter: w, proxy: p, request: r}, r)
}

// expired ends a watch whose events are gone.
const expired = `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",` +
	`"message":"too old resource version","reason":"Expired","code":410}}` + "\n"

// gated is the answer to a watch.
type gated struct {
	http.ResponseWriter
	proxy   *Proxy
	request *http.Request
}

// Write waits at the gate, if there is one.
func (g *gated) Write(b []byte) (int, error) {
	g.proxy.mu.Lock()
	at := g.proxy.gate
	g.proxy.mu.Unlock()
	if at == nil {
		return g.ResponseWriter.Write(b)
	}
	select {
	case <-at.open:
	case <-g.request.Context().Done():
		return 0, g.request.Context().Err()
	}
	if !at.lose {
		return g.ResponseWriter.Write(b)
	}
	if g.Header().Get("Content-Type") == "application/json" {
		_, _ = g.ResponseWriter.Write([]byte(expired)) // a client that is gone needs no end
		g.Flush()
	}
	panic(http.ErrAbortHandler)
}

// Flush passes what was written on.
func (g *gated) Flush() {
	if f, ok := g.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}
