package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nexus-platform/reconciler/gitsource/internal/limit"
)

const (
	maxRedirects   = 3
	maxHeaderBytes = 64 << 10
	maxRetryAfter  = time.Hour
	adverts        = "application/x-git-upload-pack-advertisement"
	results        = "application/x-git-upload-pack-result"
)

// httpLink speaks smart HTTP. Each has a client of its own: proxy, certificates and credentials of
// one repository never meet those of another.
type httpLink struct {
	addr           Address
	limits         limit.Limits
	user, password string
	client         *http.Client

	mu    sync.Mutex
	base  string // where the repository is, after redirects on its own host
	known bool   // the server speaks version 2: a poll needs no discovery
	caps  advert
}

func newHTTP(r Remote, addr Address, limits limit.Limits) (*httpLink, error) {
	h := &httpLink{addr: addr, limits: limits, user: r.Username, password: string(r.Password)}
	if r.Token != "" {
		h.password = string(r.Token)
	}
	if h.user == "" && h.password != "" {
		h.user = "git"
	}
	h.base = (&url.URL{Scheme: addr.Scheme, Host: addr.hostPort(), Path: addr.Path}).String()
	roots, err := x509.SystemCertPool()
	if err != nil || roots == nil {
		roots = x509.NewCertPool()
	}
	roots.AppendCertsFromPEM(r.CABundle)
	dialer := &net.Dialer{Timeout: limits.Phase}
	if addr.Scheme == "http" {
		dialer.Control = loopbackOnly
	}
	t := &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: limits.Phase, ResponseHeaderTimeout: limits.Phase,
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true, MaxIdleConns: 2, IdleConnTimeout: 90 * time.Second,
		DisableCompression:     true, // a packed answer cannot be a bomb
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
	if r.Proxy != "" {
		proxy, err := url.Parse(string(r.Proxy))
		if err != nil {
			return nil, errors.New("proxy of the repository: is no URL")
		}
		t.Proxy = http.ProxyURL(proxy)
	}
	h.client = &http.Client{Transport: t, CheckRedirect: h.checkRedirect}
	return h, nil
}

// loopbackOnly keeps plain http on this machine, whatever a name resolves to.
func loopbackOnly(_, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil || !isLoopback(host) {
		return errors.New("http is for loopback addresses only")
	}
	return nil
}

// checkRedirect follows a discovery on its own host and port, as a forge does after a rename.
// Elsewhere nothing is followed: the request carries the credentials.
func (h *httpLink) checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	same := req.URL.Scheme == first.URL.Scheme && strings.EqualFold(req.URL.Host, first.URL.Host)
	if !same || first.Method != http.MethodGet || len(via) > maxRedirects || req.URL.User != nil {
		return &RedirectError{URL: h.addr.String(), To: req.URL.Scheme + "://" + req.URL.Host}
	}
	return nil
}

func (h *httpLink) tip(ctx context.Context, ref string, w *watch) (string, error) {
	h.mu.Lock()
	known, caps := h.known, h.caps
	h.mu.Unlock()
	if !known {
		var err error
		if caps, err = h.discover(ctx, ref, w); err != nil || !caps.v2 {
			return caps.tip, err
		}
	}
	tip, err := h.lsRefs(ctx, ref, w)
	if err != nil {
		h.forget()
	}
	return tip, err
}

func (h *httpLink) lsRefs(ctx context.Context, ref string, w *watch) (string, error) {
	body, err := h.post(ctx, askTip(ref), true, w)
	if err != nil {
		return "", err
	}
	defer body.Close()
	defer drain(body)
	w.next("list refs")
	return readTip(newPackets(body), ref, h.limits.Refs)
}

func (h *httpLink) pack(ctx context.Context, q query, w *watch) (io.Reader, func(), error) {
	h.mu.Lock()
	known, caps := h.known, h.caps
	h.mu.Unlock()
	if !known {
		var err error
		if caps, err = h.discover(ctx, q.ref, w); err != nil {
			return nil, nil, err
		}
	}
	want, err := q.wanted(caps, h.addr.String())
	if err != nil {
		return nil, nil, err
	}
	ask, err := askPack(caps, want, q.haves)
	if err != nil {
		return nil, nil, err
	}
	body, err := h.post(ctx, ask, caps.v2, w)
	if err != nil {
		h.forget()
		return nil, nil, err
	}
	w.next("wait for the pack")
	return &band{p: newPackets(body), v2: caps.v2}, func() { _ = body.Close() }, nil
}

// discover asks what the server speaks, following redirects on its host.
func (h *httpLink) discover(ctx context.Context, ref string, w *watch) (advert, error) {
	const query = "/info/refs?service=git-upload-pack"
	start := (&url.URL{Scheme: h.addr.Scheme, Host: h.addr.hostPort(), Path: h.addr.Path}).String()
	res, err := h.do(ctx, http.MethodGet, start+query, nil, true, w)
	if err != nil {
		return advert{}, err
	}
	defer res.Body.Close()
	defer drain(res.Body)
	if err := h.check(res, adverts); err != nil {
		return advert{}, err
	}
	base, ok := strings.CutSuffix(res.Request.URL.String(), query)
	if !ok {
		return advert{}, &RedirectError{URL: h.addr.String(), To: res.Request.URL.Scheme + "://" + res.Request.URL.Host}
	}
	w.next("list refs")
	a, err := readAdvert(newPackets(res.Body), ref, h.limits.Refs)
	if err != nil {
		return a, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.base, h.known, h.caps = base, a.v2, advert{v2: a.v2, caps: a.caps}
	return a, nil
}

// forget makes the next call discover again: a server may have been changed.
func (h *httpLink) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known = false
}

func (h *httpLink) post(ctx context.Context, body []byte, v2 bool, w *watch) (io.ReadCloser, error) {
	h.mu.Lock()
	base := h.base
	h.mu.Unlock()
	res, err := h.do(ctx, http.MethodPost, base+"/git-upload-pack", body, v2, w)
	if err != nil {
		return nil, err
	}
	if err := h.check(res, results); err != nil {
		_ = res.Body.Close()
		return nil, err
	}
	return res.Body, nil
}

func (h *httpLink) do(ctx context.Context, method, where string, body []byte, v2 bool, w *watch) (*http.Response, error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { w.next("answer") },
	})
	req, err := http.NewRequestWithContext(ctx, method, where, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the URL cannot be requested")
	}
	req.Header.Set("User-Agent", "git/2.0 (nexus-reconciler)") // some forges answer only to git/
	if v2 {
		req.Header.Set("Git-Protocol", "version=2")
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		req.Header.Set("Accept", results)
	}
	req.Header["X-Idempotency-Key"] = nil // net/http: repeat it on a new connection if an idle one was closed; nothing is sent
	if h.user != "" {
		req.SetBasicAuth(h.user, h.password)
	}
	return h.client.Do(req)
}

// check judges an answer by its status and type alone; its text is never shown.
func (h *httpLink) check(res *http.Response, contentType string) error {
	name := h.addr.String()
	switch res.StatusCode {
	case http.StatusOK:
		if got := res.Header.Get("Content-Type"); got != contentType {
			return &UnreachableError{URL: name, Err: errors.New("the answer is not Git's smart HTTP; is the URL that of a repository?")}
		}
		return nil
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		if res.StatusCode == http.StatusForbidden && res.Header.Get("Retry-After") != "" {
			break // a rate limit
		}
		return &AuthError{URL: name, Status: res.StatusCode}
	}
	return &UnreachableError{URL: name, RetryAfter: retryAfter(res), Err: fmt.Errorf("the server answers with status %d", res.StatusCode)}
}

// retryAfter reads how long the server wants to be left alone, in seconds or as a date.
func retryAfter(res *http.Response) time.Duration {
	value := res.Header.Get("Retry-After")
	if s, err := strconv.Atoi(value); err == nil {
		return min(max(time.Duration(min(s, 1<<20))*time.Second, 0), maxRetryAfter)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	sent, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return 0
	}
	return min(max(at.Sub(sent), 0), maxRetryAfter)
}

// drain reads a short rest, so that the connection can be used again.
func drain(body io.Reader) { _, _ = io.CopyN(io.Discard, body, 4096) }
