package probe

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const canary = "hunter2-canary"

// service answers as the path says.
func service(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "all is well") })
	mux.HandleFunc("/teapot", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, "short \x1b[31mand\n\x00stout ", strings.Repeat("x", 1000))
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, r.Method, " ", r.Host, " ", r.Header.Get("Authorization"), " ", r.URL.RawQuery)
	})
	mux.HandleFunc("/late", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat(".", bodyLimit), "needle") })
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Repeat(".", bodyLimit-len("needle")), "needle", strings.Repeat(".", 1<<20))
	})
	mux.HandleFunc("/to-ok", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/round", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://localhost.invalid/ok", http.StatusFound)
	})
	mux.HandleFunc("/nowhere", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://%zz"+r.URL.RawQuery+strings.Repeat("y", 5000))
		w.WriteHeader(http.StatusFound)
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "begins")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
	})
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func TestHTTPAsksForWhatIsWanted(t *testing.T) {
	s := service(t)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, c := range map[string]struct {
		probe HTTP   // URL is a path of the service, or a whole one
		says  string // empty: it passes
		not   string
	}{
		"any 2xx passes by default":                         {probe: HTTP{URL: "/ok"}},
		"another status does not":                           {probe: HTTP{URL: "/teapot"}, says: `answers 418, wanted 200 to 299; the answer begins with "short [31mand stout`},
		"a status that is named passes":                     {probe: HTTP{URL: "/teapot", Status: []int{200, 418}}},
		"a status that is not named does not":               {probe: HTTP{URL: "/ok", Status: []int{201, 204}}, says: "answers 200, wanted 201, 204"},
		"text in the body passes":                           {probe: HTTP{URL: "/ok", Contains: "is well"}},
		"missing text does not":                             {probe: HTTP{URL: "/ok", Contains: "is ill"}, says: `answers without "is ill"; the answer begins with "all is well"`},
		"text at the end of the first 64 KiB passes":        {probe: HTTP{URL: "/early", Contains: "needle"}},
		"text after the first 64 KiB is not read":           {probe: HTTP{URL: "/late", Contains: "needle"}, says: "answers without"},
		"a redirect on the host is followed":                {probe: HTTP{URL: "/to-ok", Contains: "well"}},
		"a redirect to another host is the answer":          {probe: HTTP{URL: "/away"}, says: "answers 302"},
		"a redirect to another host can be wanted":          {probe: HTTP{URL: "/away", Status: []int{302}}},
		"redirects in a circle end":                         {probe: HTTP{URL: "/round"}, says: "answers 302"},
		"a redirect that cannot be read is cut short":       {probe: HTTP{URL: "/nowhere"}, says: "does not answer: failed to parse Location"},
		"nor shown where it may repeat a secret":            {probe: HTTP{URL: "/nowhere?" + canary}, says: "the answer is not understood", not: canary},
		"a body that never ends is not waited for":          {probe: HTTP{URL: "/stream", Timeout: time.Hour}},
		"a body that breaks off before the text":            {probe: HTTP{URL: "/broken", Contains: "whole"}, says: `breaks off its answer: unexpected EOF; the answer begins with "half"`},
		"nobody listens":                                    {probe: HTTP{URL: closed.URL}, says: "connection refused"},
		"no answer in time":                                 {probe: HTTP{URL: "/silent", Timeout: 20 * time.Millisecond}, says: "context deadline exceeded"},
		"method and virtual host are sent":                  {probe: HTTP{URL: "/echo", Method: "OPTIONS", Headers: map[string]string{"host": "shop.example"}}, says: `"OPTIONS shop.example`},
		"an answer to a secret header is not shown":         {probe: HTTP{URL: "/echo", Headers: map[string]string{"authorization": "Bearer " + canary}}, says: "answers 403", not: canary},
		"an answer to a query is not shown, nor the query":  {probe: HTTP{URL: "/echo?token=" + canary}, says: "/echo: answers 403", not: canary},
		"a query is not shown where nobody listens":         {probe: HTTP{URL: closed.URL + "/x?token=" + canary}, says: "connection refused", not: canary},
		"credentials in the URL are refused, and not shown": {probe: HTTP{URL: "http://u:" + canary + "@127.0.0.1/"}, says: "send them in a header", not: canary},
		"a URL that cannot be read is not shown":            {probe: HTTP{URL: "http://u:" + canary + "@[::1/%zz"}, says: "cannot be read", not: canary},
		"a file is not asked":                               {probe: HTTP{URL: "file:///etc/passwd"}, says: `scheme "file" is not asked`},
		"a URL without a host is refused":                   {probe: HTTP{URL: "http:///ok"}, says: "names no host"},
		"a method that is none is refused":                  {probe: HTTP{URL: "/ok", Method: "GET /"}, says: `method "GET /"`},
		"a CA that is none is refused":                      {probe: HTTP{URL: "/ok", CA: []byte("nonsense")}, says: "no certificate in PEM form"},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(c.probe.URL, "/") {
				c.probe.URL = s.URL + c.probe.URL
			}
			verify(t, c.probe.Probe(t.Context()), c.says, c.not)
		})
	}
}

// verify holds an error to what it should say and must not say.
func verify(t *testing.T, err error, says, not string) {
	t.Helper()
	if says == "" {
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(err.Error(), says) {
		t.Fatalf("got %v, want an *Error with %q", err, says)
	}
	if not != "" && strings.Contains(fmt.Sprintf("%v %+v", err, *e), not) {
		t.Errorf("%v says %q", err, not)
	}
	if len(e.Got) > shownLimit || strings.ContainsAny(err.Error(), "\n\x1b\x00") || len(err.Error()) > 1000 {
		t.Errorf("%d bytes, of the answer %d: %q", len(err.Error()), len(e.Got), err)
	}
}

func TestHTTPTrustsWhomItIsTold(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for name, c := range map[string]struct {
		probe HTTP
		says  string
	}{
		"a certificate of nobody known": {HTTP{}, "certificate signed by unknown authority"},
		"a certificate of the CA":       {HTTP{CA: ca}, ""},
		"any certificate":               {HTTP{InsecureSkipVerify: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.probe.URL = s.URL
			verify(t, c.probe.Probe(t.Context()), c.says, "")
		})
	}
}

func TestTCPOpensAConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := TCP{Address: l.Addr().String()}
	if err := p.Probe(t.Context()); err != nil {
		t.Errorf("while somebody listens: %v", err)
	}
	l.Close()
	verify(t, p.Probe(t.Context()), "does not accept a connection: dial tcp "+p.Address, "")
	verify(t, TCP{Address: "no port"}.Probe(t.Context()), "no port: does not accept", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Probe(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}

func TestLinkLocalAddressesAreNeverAsked(t *testing.T) {
	for _, host := range []string{
		"169.254.169.254", "169.254.0.1", "[fe80::1]", "[fe80::1%25lo]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[fd00:ec2::254]", "[ff02::1]",
	} {
		if err := (HTTP{URL: "http://" + host + ":80/latest", Timeout: time.Minute}).Probe(t.Context()); !errors.Is(err, ErrForbiddenAddress) {
			t.Errorf("http to %s: %v", host, err)
		}
		address := strings.ReplaceAll(host, "%25", "%") + ":80"
		if err := (TCP{Address: address, Timeout: time.Minute}).Probe(t.Context()); !errors.Is(err, ErrForbiddenAddress) {
			t.Errorf("tcp to %s: %v", address, err)
		}
	}
	for _, allowed := range []string{"127.0.0.1", "10.0.0.1", "192.168.1.1", "::1", "fd00:1::1", "2001:db8::1", "64:ff9b::a00:1"} {
		if forbidden(netip.MustParseAddr(allowed)) {
			t.Errorf("%s is refused", allowed)
		}
	}
}
