package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// HTTP sends one request.
type HTTP struct {
	URL                string            // http or https, without credentials
	Method             string            // default GET
	Headers            map[string]string // Host names the virtual host; where another is set, no error shows the answer
	Status             []int             // that count as an answer; empty: 200 to 299
	Contains           string            // must be in the first 64 KiB of the body
	Timeout            time.Duration     // for all of it; default 5s
	CA                 []byte            // PEM; only these may have signed the certificate; empty: those of the system
	InsecureSkipVerify bool              // any certificate will do
}

const (
	bodyLimit    = 64 << 10
	headerLimit  = 64 << 10
	shownLimit   = 200 // bytes of a body in an error
	maxRedirects = 5
)

// Probe returns nil if the service answers as it should, else an *Error. Redirects are followed on the same host and scheme only;
// another one is itself the answer.
func (p HTTP) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeoutOr(p.Timeout))
	defer cancel()
	req, err := p.request(ctx)
	if err != nil {
		return err
	}
	target := req.URL.Scheme + "://" + req.URL.Host + req.URL.EscapedPath()
	client, err := p.client(target)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return &Error{Target: target, Reason: "does not answer", Cause: p.cause(req, err)}
	}
	defer resp.Body.Close()
	reason := p.refuse(resp)
	if reason == "" && p.Contains == "" {
		return nil // without its body, which may never end
	}
	body, readErr := io.ReadAll(io.LimitReader(resp.Body, bodyLimit))
	if reason != "" {
		return &Error{Target: target, Reason: reason, Got: p.shown(req, body)}
	}
	if strings.Contains(string(body), p.Contains) {
		return nil
	}
	if readErr != nil {
		return &Error{Target: target, Reason: "breaks off its answer", Cause: readErr, Got: p.shown(req, body)}
	}
	return &Error{Target: target, Reason: fmt.Sprintf("answers without %q", p.Contains), Got: p.shown(req, body)}
}

// request builds what is sent, or says with an *Error what is wrong with it.
func (p HTTP) request(ctx context.Context) (*http.Request, error) {
	method := p.Method
	if method == "" {
		method = http.MethodGet
	}
	u, err := url.Parse(p.URL)
	if err != nil {
		return nil, &Error{Target: "check", Reason: "its URL cannot be read; write http://host:port/path"} // the cause repeats the URL, which may hold credentials
	}
	target := u.Scheme + "://" + u.Host + u.EscapedPath()
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, &Error{Target: target, Reason: fmt.Sprintf("scheme %q is not asked; write http or https", u.Scheme)}
	case u.User != nil:
		return nil, &Error{Target: target, Reason: "the URL holds credentials; send them in a header"}
	case u.Hostname() == "":
		return nil, &Error{Target: target, Reason: "the URL names no host"}
	}
	req, err := http.NewRequestWithContext(ctx, method, p.URL, nil)
	if err != nil {
		return nil, &Error{Target: target, Reason: fmt.Sprintf("method %q is not one of HTTP", method)}
	}
	for k, v := range p.Headers {
		req.Header.Set(k, v)
		if http.CanonicalHeaderKey(k) == "Host" {
			req.Host = v
		}
	}
	return req, nil
}

func (p HTTP) client(target string) (*http.Client, error) {
	trust := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: p.InsecureSkipVerify}
	if len(p.CA) > 0 {
		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM(p.CA) {
			return nil, &Error{Target: target, Reason: "its CA holds no certificate in PEM form"}
		}
	}
	return &http.Client{
		// No proxy: the question is whether the service answers, and the address must be seen here.
		Transport: &http.Transport{
			DialContext: dialer().DialContext, TLSClientConfig: trust, ForceAttemptHTTP2: true,
			DisableKeepAlives: true, MaxResponseHeaderBytes: headerLimit,
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects || next.URL.Host != via[0].URL.Host || next.URL.Scheme != via[0].URL.Scheme {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}, nil
}

// refuse says why a status is not the wanted one, or nothing.
func (p HTTP) refuse(resp *http.Response) string {
	wanted := "200 to 299"
	good := resp.StatusCode >= 200 && resp.StatusCode < 300
	if len(p.Status) > 0 {
		good = slices.Contains(p.Status, resp.StatusCode)
		wanted = strings.Trim(strings.ReplaceAll(fmt.Sprint(p.Status), " ", ", "), "[]")
	}
	if good {
		return ""
	}
	return fmt.Sprintf("answers %d, wanted %s", resp.StatusCode, wanted)
}

// shown is the beginning of a body for people, if it may be shown.
func (p HTTP) shown(req *http.Request, body []byte) string {
	if p.confides(req) {
		return ""
	}
	return printable(string(body), shownLimit)
}

// confides reports that the request may hold a secret, in a header or its query. A service may send it back in any form, so
// nothing that it sends is shown.
func (p HTTP) confides(req *http.Request) bool {
	for k := range p.Headers {
		if !innocent[http.CanonicalHeaderKey(k)] {
			return true
		}
	}
	return req.URL.RawQuery != ""
}

// innocent headers hold no secret.
var innocent = map[string]bool{"Host": true, "Accept": true, "Accept-Language": true, "Content-Type": true, "User-Agent": true}

// cause drops net/http's own repetition of the URL, whose query may hold a secret, and what may quote the answer to one.
func (p HTTP) cause(req *http.Request, err error) error {
	if outer := (*url.Error)(nil); errors.As(err, &outer) {
		err = outer.Err
	}
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	own := errors.As(err, &network) || errors.As(err, &certificate) || errors.Is(err, io.EOF) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	if p.confides(req) && !own {
		return errors.New("the answer is not understood")
	}
	return err
}
