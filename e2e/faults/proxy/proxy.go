// Package proxy stands between a daemon and its API server, numbers what the daemon writes, and does one planned thing to one of the writes.
package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/nexus-platform/reconciler/e2e/apicount"
	"github.com/nexus-platform/reconciler/journal"
)

// Write is one mutating request, in the order in which they arrived.
type Write struct {
	apicount.Request
	N       int       // its number since Arm; 0: of a kind that is not numbered (Leases, events)
	At      time.Time // of its arrival
	Step    Step
	Body    []byte
	Status  int           // of the API server's answer; 0: it was never asked
	Applied bool          // the API server did it
	Head    *journal.Head // what it writes, where it writes the head
	Spare   bool          // it writes the spare of the head
	Fault   Mode          // what was done to it
	Late    bool          // it was held back and delivered after its client had given up
	Arrived time.Time     // when it was delivered, where it is Late
	By      string        // the bearer token of whom it came from
}

// Proxy is an API server to one daemon. Its fields are set before Start.
type Proxy struct {
	Config *rest.Config
	System string // namespace of the journal
	// Kill ends the daemon that a write came from at once and returns when it has ended.
	Kill func(Write)
	// Meanwhile does what Edit, Delete, Commit and other modes need of a person; it returns when that is done.
	Meanwhile func(Mode, Write)
	// Deciding is called before a decision reaches the API server.
	Deciding func(journal.Head)
	// LateBy is how long a late write is held back.
	LateBy time.Duration

	*apicount.Proxy
	mu      sync.Mutex
	plans   []Plan // the first is the next
	n       [2]int // writes since the last fault: of the release, and to show it
	fired   []*Write
	writes  []*Write
	head    journal.Head // as the API server has it, so far as it passed here
	away    bool         // nobody answers
	gate    *gate        // watches are held back; nil: they pass
	pending sync.WaitGroup
	changed chan struct{} // closed at the next write of the head that succeeds
}

// Start begins to serve.
func (p *Proxy) Start() (err error) {
	p.changed = make(chan struct{})
	p.Proxy, err = apicount.StartAround(p.Config, p.around)
	return err
}

// Arm forgets what passed and plans faults, one after the other: the second counts from the first on.
func (p *Proxy) Arm(plans ...Plan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plans, p.n, p.fired, p.writes = plans, [2]int{}, nil, nil
	p.Take()
}

// Lift ends what is planned, also what lasts.
func (p *Proxy) Lift() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plans = nil
}

// Fired are the writes that faults were done to.
func (p *Proxy) Fired() []Write {
	p.mu.Lock()
	defer p.mu.Unlock()
	return copies(p.fired)
}

func copies(writes []*Write) []Write {
	all := make([]Write, len(writes))
	for i, w := range writes {
		all[i] = *w
	}
	return all
}

// Writes are those since Arm.
func (p *Proxy) Writes() []Write {
	p.mu.Lock()
	defer p.mu.Unlock()
	return copies(p.writes)
}

// Head is the head as the API server has it, and a channel that is closed when that changes.
func (p *Proxy) Head() (journal.Head, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.head, p.changed
}

// Later does something after a while. Settle waits for it.
func (p *Proxy) Later(after time.Duration, do func()) {
	p.pending.Go(func() {
		<-time.After(after)
		do()
	})
}

// Settle waits until no write is held back any more, and nothing else is to come.
func (p *Proxy) Settle() { p.pending.Wait() }

// around serves a request: a write with the fault that is planned for it, anything else as it is.
func (p *Proxy) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		away := p.away
		p.mu.Unlock()
		switch {
		case away:
			hangUp(r)
		case r.URL.Query().Get("watch") != "":
			p.watch(w, r, next)
		case !mutating(r):
			next.ServeHTTP(w, r)
		default:
			p.write(w, r, next)
		}
	})
}

// mutating requests change something, or ask what changing it would do.
func mutating(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	return !strings.Contains(r.URL.Path, "/authorization.k8s.io/") && !strings.Contains(r.URL.Path, "/authentication.k8s.io/")
}

// write numbers a write and passes it on, with its fault if it is the planned one.
func (p *Proxy) write(w http.ResponseWriter, r *http.Request, next http.Handler) {
	body, err := io.ReadAll(r.Body)
	if err != nil { // its client went away before it was sent
		panic(http.ErrAbortHandler)
	}
	entry := &Write{Request: apicount.Describe(r), At: time.Now(), Body: body, By: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")}
	entry.Head, entry.Spare = headIn(entry.Request, p.System, body)
	p.mu.Lock()
	entry.Step = step(entry, p.System, p.head)
	mode := None
	if entry.Step != Unnumbered {
		class := entry.Step.class()
		p.n[class]++
		entry.N = p.n[class]
		if len(p.plans) > 0 && p.plans[0].hits(entry) {
			mode, p.fired = p.plans[0].Mode, append(p.fired, entry)
			entry.Fault = mode
			if !p.plans[0].Lasting {
				p.plans, p.n = p.plans[1:], [2]int{}
			}
		}
	}
	p.writes = append(p.writes, entry)
	p.mu.Unlock()
	if entry.Step == S11 && mode.Reaches() {
		p.Deciding(*entry.Head)
	}
	p.serve(w, r, &request{Proxy: p, entry: entry, request: r, next: next}, mode)
}

// request is a write on its way.
type request struct {
	*Proxy
	entry   *Write
	request *http.Request
	next    http.Handler
}

// forward asks the API server, whatever becomes of the client.
func (q *request) forward() *httptest.ResponseRecorder {
	out := q.request.Clone(context.WithoutCancel(q.request.Context()))
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(q.entry.Body)), int64(len(q.entry.Body))
	out.Header.Del("Accept-Encoding")
	answer := httptest.NewRecorder()
	q.next.ServeHTTP(answer, out)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.entry.Status, q.entry.Applied = answer.Code, answer.Code < 300 && !q.entry.DryRun
	if q.entry.Applied && q.entry.Head != nil {
		q.head = *q.entry.Head
		close(q.changed)
		q.changed = make(chan struct{})
	}
	return answer
}

// reply passes an answer on.
func reply(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	for k, v := range answer.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // a client that is gone is what this is about
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

// headIn is the head that a request writes, or nil; spare says that it writes a spare of it instead.
func headIn(r apicount.Request, system string, body []byte) (head *journal.Head, spare bool) {
	if r.Resource != "secrets" || r.Namespace != system || r.Verb != "create" && r.Verb != "update" {
		return nil, false
	}
	decoded, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil) // JSON or protobuf
	s, ok := decoded.(*corev1.Secret)
	if err != nil || !ok {
		return nil, false
	}
	if strings.HasPrefix(s.Name, "nexus-spare-") {
		return nil, true
	}
	h := &journal.Head{}
	if !strings.HasPrefix(s.Name, "nexus-head-") || json.Unmarshal(s.Data["head"], h) != nil {
		return nil, false
	}
	return h, false
}
