// Package probe asks a running service whether it answers.
package probe

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Error says what did not answer as it should.
type Error struct {
	Target string // address or URL, without credentials and query
	Reason string
	Cause  error
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Target + ": " + e.Reason + ": " + e.Cause.Error()
	}
	return e.Target + ": " + e.Reason
}

func (e *Error) Unwrap() error { return e.Cause }

const defaultTimeout = 5 * time.Second

// dialer refuses link-local addresses after the name was resolved: that is where clouds
// serve the credentials of the machine.
func dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: timeout, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if ap.Addr().Unmap().IsLinkLocalUnicast() || ap.Addr().Unmap().IsLinkLocalMulticast() {
			return fmt.Errorf("%s is a link-local address: refused", ap.Addr())
		}
		return nil
	}}
}

// TCP opens one connection.
type TCP struct {
	Address string // host:port
	Timeout time.Duration
}

// Probe returns nil if the service accepts a connection, else an *Error.
func (p TCP) Probe(ctx context.Context) error {
	conn, err := dialer(timeoutOr(p.Timeout)).DialContext(ctx, "tcp", p.Address)
	if err != nil {
		return &Error{Target: p.Address, Reason: "does not accept a connection", Cause: err}
	}
	return conn.Close()
}

func timeoutOr(d time.Duration) time.Duration {
	if d <= 0 {
		return defaultTimeout
	}
	return d
}

// HTTP sends one GET.
type HTTP struct {
	URL      string
	Status   []int  // that count as an answer; empty: 200 to 299
	Contains string // must be in the first 64 KiB of the body
	Timeout  time.Duration
}

const (
	bodyLimit = 64 << 10
	redirects = 5
)

// Probe returns nil if the service answers as it should, else an *Error, which holds nothing of the body.
func (p HTTP) Probe(ctx context.Context) error {
	timeout := timeoutOr(p.Timeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL, nil)
	if err != nil {
		return &Error{Target: "check", Reason: "the URL is not valid"}
	}
	target := req.URL.Scheme + "://" + req.URL.Host + req.URL.EscapedPath()
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" || req.URL.User != nil {
		return &Error{Target: target, Reason: "only http and https without credentials are asked"}
	}
	client := &http.Client{
		Transport: &http.Transport{DialContext: dialer(timeout).DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: bodyLimit},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if len(via) >= redirects || next.URL.Host != via[0].URL.Host {
				return http.ErrUseLastResponse // the redirect itself is the answer
			}
			return nil
		},
	}
	resp, err := client.Do(req)
	if err != nil {
		return &Error{Target: target, Reason: "does not answer", Cause: unwrapURL(err)}
	}
	defer resp.Body.Close()
	good := resp.StatusCode >= 200 && resp.StatusCode < 300
	if len(p.Status) > 0 {
		good = slices.Contains(p.Status, resp.StatusCode)
	}
	if !good {
		return &Error{Target: target, Reason: fmt.Sprintf("answers %d", resp.StatusCode)}
	}
	if p.Contains == "" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, bodyLimit))
	if err != nil {
		return &Error{Target: target, Reason: "breaks off its answer", Cause: err}
	}
	if !strings.Contains(string(body), p.Contains) {
		return &Error{Target: target, Reason: fmt.Sprintf("answers without %q", p.Contains)}
	}
	return nil
}

// unwrapURL drops net/http's own repetition of the URL, query included.
func unwrapURL(err error) error {
	if inner, ok := err.(interface{ Unwrap() error }); ok && inner.Unwrap() != nil {
		return inner.Unwrap()
	}
	return err
}
