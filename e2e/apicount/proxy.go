// Package apicount stands before an API server and writes down what is asked of it.
package apicount

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"
)

// Request is one that passed.
type Request struct {
	Verb      string // get, list, watch, create, update, patch, apply, delete, or the path's own for what is no resource
	Resource  string // "deployments.apps", "pods/log"; the path for what is no resource
	Namespace string
	Name      string
	DryRun    bool
	Bytes     *atomic.Int64 // of the body that was sent
}

// String is "apply deployments.apps shop/web (dry run)".
func (r Request) String() string {
	text := strings.TrimSpace(r.Verb + " " + r.Resource + " " + strings.Trim(r.Namespace+"/"+r.Name, "/"))
	if r.DryRun {
		text += " (dry run)"
	}
	return text
}

// Proxy is an API server to its clients. Their credentials are passed on; it has none.
type Proxy struct {
	URL string
	CA  []byte // PEM, of its certificate

	server *httptest.Server
	mu     sync.Mutex
	passed []Request
}

// Start stands before the API server of config, on a free port of the loopback interface.
func Start(config *rest.Config) (*Proxy, error) { return StartAround(config, nil) }

// StartAround is Start with a handler around the one that passes requests on; nil: none. It may answer itself.
func StartAround(config *rest.Config, around func(next http.Handler) http.Handler) (*Proxy, error) {
	anonymous := rest.AnonymousClientConfig(config)
	anonymous.QPS = -1
	transport, err := rest.TransportFor(anonymous)
	if err != nil {
		return nil, err
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		return nil, err
	}
	p := &Proxy{}
	var forward http.Handler = &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // watches
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = target.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	if around != nil {
		forward = around(forward)
	}
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.note(r)
		forward.ServeHTTP(w, r)
	}))
	p.server.EnableHTTP2 = true
	p.server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that are killed are what some proxies are for
	p.server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connection{}, c)
	}
	p.server.StartTLS()
	p.URL = p.server.URL
	p.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw})
	return p, nil
}

// Close cuts all connections.
func (p *Proxy) Close() {
	p.server.CloseClientConnections()
	p.server.Close()
}

// connection is the key of the connection that a request came on.
type connection struct{}

// Connection is what a request came on, and may share with others.
func Connection(r *http.Request) net.Conn {
	c, _ := r.Context().Value(connection{}).(net.Conn)
	return c
}

// CloseConnections hangs up on everybody. New connections are served.
func (p *Proxy) CloseConnections() { p.server.CloseClientConnections() }

// Describe says what a request asks of an API server.
func Describe(r *http.Request) Request {
	parse := request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	info, err := parse.NewRequestInfo(r)
	if err != nil {
		info = &request.RequestInfo{Verb: strings.ToLower(r.Method), Path: r.URL.Path}
	}
	n := Request{Verb: info.Verb, Resource: info.Path, Bytes: new(atomic.Int64), DryRun: r.URL.Query().Has("dryRun")}
	if info.IsResourceRequest {
		n.Resource, n.Namespace, n.Name = info.Resource, info.Namespace, info.Name
		if info.APIGroup != "" {
			n.Resource += "." + info.APIGroup
		}
		if info.Subresource != "" {
			n.Resource += "/" + info.Subresource
		}
	}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/apply-patch") {
		n.Verb = "apply"
	}
	return n
}

func (p *Proxy) note(r *http.Request) {
	n := Describe(r)
	if r.Body != nil {
		r.Body = &counted{ReadCloser: r.Body, bytes: n.Bytes}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passed = append(p.passed, n)
}

type counted struct {
	io.ReadCloser
	bytes *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.bytes.Add(int64(n))
	return n, err
}

// Take returns what passed since it was asked last.
func (p *Proxy) Take() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	passed := p.passed
	p.passed = nil
	return passed
}

// Tally counts requests by what group says of them; those of which it says nothing are left out.
func Tally(requests []Request, group func(Request) string) map[string]int {
	counts := map[string]int{}
	for _, r := range requests {
		if g := group(r); g != "" {
			counts[g]++
		}
	}
	return counts
}

// Lines writes a tally, the largest count first.
func Lines(counts map[string]int) string {
	keys := make([]string, 0, len(counts))
	for k := range counts {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		if counts[keys[i]] != counts[keys[j]] {
			return counts[keys[i]] > counts[keys[j]]
		}
		return keys[i] < keys[j]
	})
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "%6d %s\n", counts[k], k)
	}
	return b.String()
}
