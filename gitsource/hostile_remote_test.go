package gitsource_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nexus-platform/reconciler/e2e/gitserver"
	"github.com/nexus-platform/reconciler/gitsource"
)

const (
	advertType = "application/x-git-upload-pack-advertisement"
	resultType = "application/x-git-upload-pack-result"
	someHash   = "1234567890123456789012345678901234567890"
)

func packet(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }

// serve runs a hand-written server until the test ends.
func serve(t *testing.T, h http.HandlerFunc) (url string) {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL + "/shop.git"
}

// hostile answers the discovery with version 2, one poll honestly, and each fetch with pack.
func hostile(t *testing.T, pack func(w http.ResponseWriter, r *http.Request)) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.Method == http.MethodGet:
			w.Header().Set("Content-Type", advertType)
			fmt.Fprint(w, packet("version 2\n"), packet("ls-refs\n"), packet("fetch\n"), "0000")
		case bytes.Contains(body, []byte("ls-refs")):
			w.Header().Set("Content-Type", resultType)
			fmt.Fprint(w, packet(someHash+" refs/heads/main\n"), "0000")
		default:
			w.Header().Set("Content-Type", resultType)
			pack(w, r)
		}
	})
}

// drip begins a long packet and writes one byte of it now and then, until the client has gone.
func drip(w http.ResponseWriter, r *http.Request) {
	fmt.Fprint(w, "ffe0")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
			if _, err := w.Write([]byte("x")); err != nil {
				return
			}
			w.(http.Flusher).Flush()
		}
	}
}

func TestB01B03RewrittenBranches(t *testing.T) {
	rewrites := map[string]func(*gitserver.Repo) string{
		"the tip was amended": func(r *gitserver.Repo) string {
			r.Write("a", "amended")
			r.Git("commit", "-q", "-a", "--amend", "-m", "amended")
			return r.Git("rev-parse", "HEAD")
		},
		"the branch was set back": func(r *gitserver.Repo) string {
			r.Git("reset", "-q", "--hard", "HEAD~1")
			return r.Git("rev-parse", "HEAD")
		},
		"the branch was made anew from another root": func(r *gitserver.Repo) string {
			r.Git("checkout", "-q", "--orphan", "other")
			hash := r.Commit("unrelated")
			r.Git("branch", "-M", "main")
			return hash
		},
	}
	for name, rewrite := range rewrites {
		for _, fresh := range []string{"with the old history in the mirror", "with an empty mirror"} {
			t.Run(name+" "+fresh, func(t *testing.T) {
				t.Parallel()
				server := gitserver.Start(t)
				repo := server.Init("shop")
				repo.Release("first", "a", "1")
				old := repo.Release("second", "a", "2")
				m := open(t, gitsource.Remote{URL: server.URL("shop")})
				if fresh == "with the old history in the mirror" {
					fetchTip(t, follow(m))
				}
				tip := rewrite(repo)
				repo.Git("push", "-q", "--force", "origin", "HEAD:main")
				s := follow(m)
				hash, err := s.Tip(t.Context())
				if err != nil || hash != tip {
					t.Fatalf("tip %s, %v; want %s", hash, err, tip)
				}
				_, err = s.Fetch(t.Context(), hash, old)
				e := as[*gitsource.RewrittenError](t, err)
				if e.Branch != "main" || e.Old != old || e.New != tip {
					t.Errorf("%+v", e)
				}
				s.Rewrite = gitsource.FollowRewrite
				if _, err := s.Fetch(t.Context(), hash, old); err != nil {
					t.Errorf("followed: %v", err)
				}
			})
		}
	}
	t.Run("a merge of an older side branch is no rewrite", func(t *testing.T) {
		server := gitserver.Start(t)
		repo := server.Init("shop")
		repo.Release("first", "a", "1")
		repo.Git("checkout", "-q", "-b", "side")
		repo.Write("b", "1")
		repo.Commit("side")
		repo.Git("checkout", "-q", "main")
		old := repo.Release("second", "a", "2")
		m := open(t, gitsource.Remote{URL: server.URL("shop")})
		fetchTip(t, follow(m))
		repo.Git("merge", "-q", "--no-ff", "-m", "merge", "side")
		repo.Push()
		tip := repo.Git("rev-parse", "HEAD")
		if _, err := follow(m).Fetch(t.Context(), tip, old); err != nil {
			t.Error(err)
		}
	})
}

func TestB03ADeletedBranchIsNotAMissingRepository(t *testing.T) {
	for _, protocol := range []string{"version 2", "version 0"} {
		t.Run(protocol, func(t *testing.T) {
			server := gitserver.Start(t)
			if protocol == "version 0" {
				server.OnlyV0()
			}
			repo := server.Init("shop")
			s := follow(open(t, gitsource.Remote{URL: server.URL("shop")}))
			_, err := s.Tip(t.Context())
			as[*gitsource.BranchMissingError](t, err) // nothing was pushed yet
			hash := repo.Release("first", "a", "1")
			fetchTip(t, s)
			repo.Git("push", "-q", "origin", "main:main-2", ":main")
			_, err = s.Tip(t.Context())
			if e := as[*gitsource.BranchMissingError](t, err); e.Branch != "main" {
				t.Errorf("%+v", e)
			}
			if _, err := s.Mirror.Tree(t.Context(), hash); err != nil {
				t.Errorf("the last good commit: %v", err)
			}
			_, err = follow(open(t, gitsource.Remote{URL: server.URL("nothing")})).Tip(t.Context())
			if e := as[*gitsource.AuthError](t, err); e.Status != 404 {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestB05RefNames(t *testing.T) {
	t.Run("in our configuration", func(t *testing.T) {
		m := open(t, gitsource.Remote{URL: "https://git.example.com/o/r"})
		for _, branch := range []string{
			"", "../x", "a/../b", "a\nb", "a%00b", "a b", "--upload-pack=x", "-x", "a..b", "a.lock", ".a", "a/", "/a", "a//b", "@",
			"a@{1}", "a~1", "a^", "a:b", "a?", "a*", "a[", `a\b`, "refs/heads/main", strings.Repeat("x", 65536),
		} {
			if err := (&gitsource.Source{Mirror: m, Branch: branch}).Validate(); err == nil {
				t.Errorf("branch %.40q was taken", branch)
			}
		}
		for _, branch := range []string{"main", "feature/x", "release-1.2", "ünïcode"} {
			if err := (&gitsource.Source{Mirror: m, Branch: branch}).Validate(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("from the server", func(t *testing.T) {
		dir := t.TempDir()
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", advertType)
			fmt.Fprint(w, packet("# service=git-upload-pack\n"), "0000")
			for i, name := range []string{"refs/heads/../../../../x", "refs/heads/a\nb", "refs/heads/%00", "refs/heads/" + strings.Repeat("x", 65000), "refs/heads/main"} {
				caps := ""
				if i == 0 {
					caps = "\x00side-band-64k"
				}
				fmt.Fprint(w, packet(someHash+" "+name+caps+"\n"))
			}
			fmt.Fprint(w, "0000")
		})
		m, err := (&gitsource.Mirrors{Dir: dir}).Open(gitsource.Remote{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		if hash, err := follow(m).Tip(t.Context()); err != nil || hash != someHash {
			t.Errorf("%s, %v", hash, err)
		}
	})
}

func TestB08HugeAnswers(t *testing.T) {
	advert := func(write func(w io.Writer)) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", advertType)
			write(w)
		}
	}
	var peak atomic.Uint64
	watch := func() {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak.Store(max(peak.Load(), m.HeapAlloc))
	}
	answers := map[string]http.HandlerFunc{
		"1,000,000 refs": advert(func(w io.Writer) {
			fmt.Fprint(w, packet("# service=git-upload-pack\n"), "0000", packet(someHash+" HEAD\x00side-band-64k\n"))
			for i := range 1_000_000 {
				if _, err := fmt.Fprint(w, packet(fmt.Sprintf("%s refs/pull/%d/head\n", someHash, i))); err != nil {
					return
				}
				if i%50_000 == 0 {
					watch()
				}
			}
		}),
		"service lines without end": advert(func(w io.Writer) {
			for {
				if _, err := fmt.Fprint(w, packet("# service=git-upload-pack\n")); err != nil {
					return
				}
			}
		}),
		"one line of 1 GB": advert(func(w io.Writer) {
			line := bytes.Repeat([]byte("x"), 1<<20)
			for range 1024 {
				if _, err := w.Write(line); err != nil {
					return
				}
				watch()
			}
		}),
		"a packet larger than Git knows": advert(func(w io.Writer) { fmt.Fprint(w, "ffff", strings.Repeat("x", 70000)) }),
		"headers of 1 MB": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Large", strings.Repeat("x", 1<<20))
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			s := follow(open(t, gitsource.Remote{URL: serve(t, answer)}))
			_, err := s.Tip(t.Context())
			if err == nil {
				t.Fatal("it was taken")
			}
			if strings.Contains(name, "refs") {
				if e := as[*gitsource.LimitError](t, err); e.Limit != "Refs" {
					t.Errorf("%+v", e)
				}
			}
		})
	}
	t.Run("progress without end", func(t *testing.T) {
		s := follow(openWith(t, gitsource.Remote{URL: hostile(t, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, packet("packfile\n"))
			for {
				if _, err := fmt.Fprint(w, packet("\x02working\n")); err != nil {
					return
				}
			}
		})}, quick()))
		_, err := s.Fetch(t.Context(), someHash, "")
		as[*gitsource.UnreachableError](t, err)
	})
	if got := peak.Load(); got > 256<<20 {
		t.Errorf("the heap grew to %d bytes", got)
	}
}

func TestB09SlowServers(t *testing.T) {
	silent := func(t *testing.T) (address string) {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var open []net.Conn
		t.Cleanup(func() {
			_ = l.Close()
			mu.Lock()
			defer mu.Unlock()
			for _, c := range open {
				_ = c.Close()
			}
		})
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				mu.Lock()
				open = append(open, c)
				mu.Unlock()
			}
		}()
		return l.Addr().String()
	}
	slow := map[string]func(t *testing.T) gitsource.Remote{
		"at the TLS handshake": func(t *testing.T) gitsource.Remote {
			return gitsource.Remote{URL: "https://" + silent(t) + "/x"}
		},
		"at the ssh handshake": func(t *testing.T) gitsource.Remote {
			return gitsource.Remote{URL: "ssh://" + silent(t) + "/x", KnownHosts: []byte("* " + newHostKey(t).line), Password: canary}
		},
		"before the answer": func(t *testing.T) gitsource.Remote {
			return gitsource.Remote{URL: serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}
		},
		"in the refs": func(t *testing.T) gitsource.Remote {
			return gitsource.Remote{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", advertType)
				drip(w, r)
			})}
		},
		"before the pack": func(t *testing.T) gitsource.Remote {
			return gitsource.Remote{URL: hostile(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}
		},
		"in the pack": func(t *testing.T) gitsource.Remote {
			return gitsource.Remote{URL: hostile(t, func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, packet("packfile\n"), packet("\x01PACK\x00\x00\x00\x02\x00\x00\x00\x01"))
				drip(w, r)
			})}
		},
	}
	for name, at := range slow {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := follow(openWith(t, at(t), quick()))
			began := time.Now()
			_, err := s.Tip(t.Context())
			if err == nil {
				_, err = s.Fetch(t.Context(), someHash, "")
			}
			e := as[*gitsource.UnreachableError](t, err)
			if !e.Temporary() {
				t.Error("it is not temporary")
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	t.Run("just fast enough for each phase, but not as a whole", func(t *testing.T) {
		t.Parallel()
		limits := gitsource.Limits{Phase: 5 * time.Second, Total: time.Second}
		s := follow(openWith(t, gitsource.Remote{URL: hostile(t, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, packet("packfile\n"), packet("\x01PACK\x00\x00\x00\x02\x00\x00\x00\x01"))
			drip(w, r)
		})}, limits))
		began := time.Now()
		_, err := s.Fetch(t.Context(), someHash, "")
		as[*gitsource.UnreachableError](t, err)
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	t.Run("while it hangs, other repositories are asked, and a stop stops it", func(t *testing.T) {
		t.Parallel()
		server := gitserver.Start(t)
		server.Init("shop").Release("first", "a", "1")
		mirrors := &gitsource.Mirrors{Dir: t.TempDir()}
		hangs := make(chan struct{})
		var once sync.Once
		stuck, err := mirrors.Open(gitsource.Remote{URL: serve(t, func(_ http.ResponseWriter, r *http.Request) {
			once.Do(func() { close(hangs) })
			<-r.Context().Done()
		})})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := follow(stuck).Tip(ctx)
			failed <- err
		}()
		<-hangs
		m, err := mirrors.Open(gitsource.Remote{URL: server.URL("shop")})
		if err != nil {
			t.Fatal(err)
		}
		fetchTip(t, follow(m))
		stop()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("the stopped one: %v", err)
		}
	})
}

// unframe takes the pack out of an answer of version 2; frame puts one back.
func unframe(answer []byte) []byte {
	var pack []byte
	for len(answer) >= 4 {
		n, err := strconv.ParseUint(string(answer[:4]), 16, 16)
		if err != nil || n < 4 {
			return pack
		}
		if n > 4 && answer[4] == 1 {
			pack = append(pack, answer[5:n]...)
		}
		answer = answer[n:]
	}
	return pack
}

func frame(pack []byte) []byte {
	out := bytes.NewBufferString(packet("packfile\n"))
	for len(pack) > 0 {
		n := min(len(pack), 60000)
		fmt.Fprint(out, packet("\x01"+string(pack[:n])))
		pack = pack[n:]
	}
	out.WriteString("0000")
	return out.Bytes()
}

// seal replaces the trailer of a pack by the right one.
func seal(pack []byte) []byte {
	body := pack[:len(pack)-sha1.Size]
	sum := sha1.Sum(body)
	return append(bytes.Clone(body), sum[:]...)
}

// tampered serves a real server's repositories and changes the packs as long as change is set.
func tampered(t *testing.T, server *gitserver.Server, change *atomic.Pointer[func([]byte) []byte]) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		to := strings.TrimSuffix(server.URL("shop"), "/shop.git") + r.URL.RequestURI()
		body, _ := io.ReadAll(r.Body)
		req, err := http.NewRequestWithContext(r.Context(), r.Method, to, bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header = r.Header.Clone()
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return
		}
		defer res.Body.Close()
		answer, _ := io.ReadAll(res.Body)
		w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
		if f := change.Load(); f != nil && bytes.Contains(body, []byte("command=fetch")) {
			answer = (*f)(answer)
		}
		_, _ = w.Write(answer)
	})
}

// deltaBomb is a pack of a few KB: a small blob, and a delta that copies it until there is 1 GB.
func deltaBomb() []byte {
	const block, times = 60_000, 18_000
	pack := bytes.NewBufferString("PACK\x00\x00\x00\x02\x00\x00\x00\x02")
	base := string(make([]byte, block))
	writeObject(pack, 3, "", []byte(base))
	delta := binary.AppendUvarint(nil, block)
	delta = binary.AppendUvarint(delta, block*times)
	for range times {
		delta = append(delta, 0x80|0x30, block&0xff, block>>8) // copy block bytes from 0
	}
	name := sha1.Sum(fmt.Appendf(nil, "blob %d\x00%s", block, base))
	writeObject(pack, 7, string(name[:]), delta)
	return seal(append(pack.Bytes(), make([]byte, sha1.Size)...))
}

// writeObject adds an object to a pack; extra stands between its header and its bytes.
func writeObject(pack *bytes.Buffer, kind byte, extra string, raw []byte) {
	size := len(raw)
	b := kind<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		pack.WriteByte(b | 0x80)
		b = byte(size & 127)
	}
	pack.WriteByte(b)
	pack.WriteString(extra)
	pack.Write(deflate(raw))
}

func TestA12ADeltaBombIsNotResolved(t *testing.T) {
	bomb := deltaBomb()
	s := follow(open(t, gitsource.Remote{URL: hostile(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(frame(bomb)) })}))
	var was, is runtime.MemStats
	runtime.ReadMemStats(&was)
	_, err := s.Fetch(t.Context(), someHash, "")
	runtime.ReadMemStats(&is)
	if e := as[*gitsource.LimitError](t, err); e.Limit != "ObjectBytes" {
		t.Errorf("%+v", e)
	}
	if grown := is.TotalAlloc - was.TotalAlloc; grown > 32<<20 {
		t.Errorf("%d bytes of pack made us allocate %d", len(bomb), grown)
	}
}

func TestB10DamagedPacks(t *testing.T) {
	other := gitserver.Start(t)
	other.Init("shop").Release("another history", "z", "z")
	foreign := rawPack(t, other)
	onPack := func(f func([]byte) []byte) func([]byte) []byte {
		return func(answer []byte) []byte { return frame(f(unframe(answer))) }
	}
	damages := map[string]func([]byte) []byte{
		"cut in the middle of a packet": func(a []byte) []byte { return a[:len(a)/2] },
		"cut between the pack's bytes":  onPack(func(p []byte) []byte { return p[:len(p)/2] }),
		"without its end":               func(a []byte) []byte { return a[:len(a)-4] },
		"with a wrong trailer": onPack(func(p []byte) []byte {
			p[len(p)-1] ^= 1
			return p
		}),
		"with a changed byte and the right trailer": onPack(func(p []byte) []byte {
			p[len(p)/2] ^= 1
			return seal(p)
		}),
		"with objects of another history": onPack(func([]byte) []byte { return foreign }),
		"empty": onPack(func([]byte) []byte {
			return seal(append([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x00"), make([]byte, 20)...))
		}),
		"not a pack": onPack(func([]byte) []byte { return []byte("<html>" + canary) }),
		"that claims four thousand million objects": onPack(func(p []byte) []byte { copy(p[8:], "\xff\xff\xff\xff"); return seal(p) }),
		"that claims one object more":               onPack(func(p []byte) []byte { p[11]++; return seal(p) }),
		"of another version":                        onPack(func(p []byte) []byte { p[7] = 9; return seal(p) }),
		"followed by something":                     onPack(func(p []byte) []byte { return append(p, "more"...) }),
		"with a delta that grows to 1 GB (A12)":     onPack(func([]byte) []byte { return deltaBomb() }),
		"replaced by an error of the server": func([]byte) []byte {
			return []byte(packet("packfile\n") + packet("\x03access with "+canary+" denied\n"))
		},
		"replaced by an ERR line": func([]byte) []byte { return []byte(packet("ERR " + canary + "\n")) },
		"replaced by nothing":     func([]byte) []byte { return nil },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := gitserver.Start(t)
			repo := server.Init("shop")
			good := repo.Release("good", "a", "1")
			var change atomic.Pointer[func([]byte) []byte]
			dir := t.TempDir()
			m, err := (&gitsource.Mirrors{Dir: dir}).Open(gitsource.Remote{URL: tampered(t, server, &change)})
			if err != nil {
				t.Fatal(err)
			}
			s := follow(m)
			fetchTip(t, s)
			before := diskUse(t, dir)
			next := repo.Release("next", "a", strings.Repeat("2\n", 100))
			change.Store(&damage)
			_, err = s.Fetch(t.Context(), next, good)
			if err == nil || strings.Contains(err.Error(), canary) {
				t.Fatalf("got %v", err)
			}
			if after := diskUse(t, dir); fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("on disk before %v, after %v", before, after)
			}
			if got, err := treeOf(t, m, good).ReadFile("a"); err != nil || string(got) != "1" {
				t.Errorf("the last good commit: %q, %v", got, err)
			}
			change.Store(nil)
			if _, err := s.Fetch(t.Context(), next, good); err != nil {
				t.Errorf("the next poll: %v", err)
			}
		})
	}
}

// rawPack is what a server sends to somebody who has nothing.
func rawPack(t *testing.T, server *gitserver.Server) []byte {
	t.Helper()
	var pack []byte
	keep := func(answer []byte) []byte {
		pack = unframe(answer)
		return answer
	}
	var change atomic.Pointer[func([]byte) []byte]
	change.Store(&keep)
	fetchTip(t, follow(open(t, gitsource.Remote{URL: tampered(t, server, &change)})))
	return pack
}

func TestB12RedirectsNeverCarryCredentials(t *testing.T) {
	var leaked atomic.Int64
	elsewhere := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Add(1)
		}
		leaked.Add(1)
	})
	secret := gitsource.Remote{Username: "jane", Password: canary}
	targets := map[string]string{
		"to another host": elsewhere, "to a file": "file:///etc/passwd", "to https elsewhere": "https://127.0.0.1:1/x",
		"to the metadata service": "http://169.254.169.254/latest", "with credentials of its own": "http://u:p@",
	}
	for name, target := range targets {
		for _, status := range []int{301, 302, 303, 307, 308} {
			for _, on := range []string{http.MethodGet, http.MethodPost} {
				t.Run(fmt.Sprintf("%d %s on %s", status, name, on), func(t *testing.T) {
					r := secret
					r.URL = serve(t, func(w http.ResponseWriter, r *http.Request) {
						if on == http.MethodPost && r.Method == http.MethodGet {
							w.Header().Set("Content-Type", advertType)
							fmt.Fprint(w, packet("version 2\n"), packet("ls-refs\n"), "0000")
							return
						}
						to := target + "/info/refs?service=git-upload-pack"
						if strings.HasSuffix(target, "@") {
							to = target + r.Host + r.URL.RequestURI()
						}
						w.Header().Set("Location", to)
						w.WriteHeader(status)
					})
					_, err := follow(open(t, r)).Tip(t.Context())
					as[*gitsource.RedirectError](t, err)
				})
			}
		}
	}
	if n := leaked.Load(); n > 0 {
		t.Errorf("the other host was contacted %d times", n)
	}
	t.Run("on the same host a renamed repository is found", func(t *testing.T) {
		server := gitserver.Start(t)
		hash := server.Init("new").Release("first", "a", "1")
		server.RequireLogin("jane", canary)
		server.Fault(func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.URL.Path, "/old.git/") && r.Method == http.MethodGet {
				http.Redirect(w, r, "/new.git/info/refs?"+r.URL.RawQuery, http.StatusMovedPermanently)
				return true
			}
			return false
		})
		r := secret
		r.URL = server.URL("old")
		if c := fetchTip(t, follow(open(t, r))); c.Hash != hash {
			t.Errorf("%+v", c)
		}
	})
}

func TestB13Answers(t *testing.T) {
	answers := map[string]struct {
		status     int
		retryAfter string
		auth       bool
		wait       time.Duration
	}{
		"401": {status: 401, auth: true}, "403": {status: 403, auth: true}, "404": {status: 404, auth: true},
		"403 of a rate limit":      {status: 403, retryAfter: "60", wait: time.Minute},
		"429":                      {status: 429},
		"429 with Retry-After":     {status: 429, retryAfter: "120", wait: 2 * time.Minute},
		"429 with a long wait":     {status: 429, retryAfter: "99999999999", wait: time.Hour},
		"503 with a very long one": {status: 503, retryAfter: "86400", wait: time.Hour},
		"503 with nonsense":        {status: 503, retryAfter: "-5"},
		"500":                      {status: 500}, "502": {status: 502}, "204": {status: 204}, "200 with a login page": {status: 200},
	}
	for name, a := range answers {
		t.Run(name, func(t *testing.T) {
			r := gitsource.Remote{Token: canary, URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
				if a.retryAfter != "" {
					w.Header().Set("Retry-After", a.retryAfter)
				}
				w.WriteHeader(a.status)
				_, password, _ := r.BasicAuth()
				fmt.Fprint(w, "<html>your token is ", password, r.Header.Get("Authorization"))
			})}
			_, err := follow(open(t, r)).Tip(t.Context())
			if a.auth {
				if e := as[*gitsource.AuthError](t, err); e.Status != a.status {
					t.Errorf("%+v", e)
				}
				return
			}
			if e := as[*gitsource.UnreachableError](t, err); e.RetryAfter != a.wait {
				t.Errorf("waits %s, want %s", e.RetryAfter, a.wait)
			}
		})
	}
	unreachable := map[string]func(t *testing.T) gitsource.Remote{
		"nobody listens": func(*testing.T) gitsource.Remote { return gitsource.Remote{URL: "https://127.0.0.1:1/x"} },
		"the name has gone": func(*testing.T) gitsource.Remote {
			return gitsource.Remote{URL: "https://gone.invalid/x"}
		},
		"a wrong CA": func(t *testing.T) gitsource.Remote {
			return gitsource.Remote{URL: gitserver.StartTLS(t).URL("shop")}
		},
		"an expired certificate": expiredTLS,
		"it hangs up": func(t *testing.T) gitsource.Remote {
			return gitsource.Remote{URL: serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })}
		},
	}
	for name, remote := range unreachable {
		t.Run(name, func(t *testing.T) {
			r := remote(t)
			r.Password = canary
			_, err := follow(open(t, r)).Tip(t.Context())
			as[*gitsource.UnreachableError](t, err)
		})
	}
}

func expiredTLS(t *testing.T) gitsource.Remote {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return gitsource.Remote{URL: server.URL + "/x", CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func TestB14ConfigurationsThatAreRefused(t *testing.T) {
	key := newHostKey(t)
	remotes := map[string]gitsource.Remote{
		"a password in the URL":         {URL: "https://u:" + canary + "@host/x"},
		"a token as user in the URL":    {URL: "https://" + canary + "@host/x"},
		"a password in an ssh URL":      {URL: "ssh://git:" + canary + "@host/x"},
		"a password in a broken URL":    {URL: "https://u:" + canary + "%zz@host/x"},
		"a token in the query":          {URL: "https://host/x?token=" + canary},
		"a fragment":                    {URL: "https://host/x#" + canary},
		"an option as ssh host":         {URL: "ssh://-oProxyCommand=" + canary + "/x"},
		"an option as scp host":         {URL: "-oProxyCommand=" + canary + ":x"},
		"an option as ssh user":         {URL: "ssh://-l@host/x"},
		"an option as scp path":         {URL: "git@host:--upload-pack=x"},
		"a transport helper":            {URL: "ext::sh -c id"},
		"a transport helper as scp":     {URL: "ext::sh"},
		"another scheme":                {URL: "git://host/x"},
		"ftp":                           {URL: "ftp://host/x"},
		"http to another machine":       {URL: "http://git.example.com/x"},
		"a path without scheme":         {URL: "/srv/git/x"},
		"a control character":           {URL: "https://host/x\ny"},
		"an escaped control character":  {URL: "https://host/x%0ay"},
		"a NUL":                         {URL: "https://host/x%00y"},
		"a way up":                      {URL: "https://host/a/../../b"},
		"an escaped way up":             {URL: "https://host/a/%2e%2e/b"},
		"no path":                       {URL: "https://host/"},
		"no host":                       {URL: "https:///x"},
		"a host for a file":             {URL: "file://host/x"},
		"a bad port":                    {URL: "https://host:99999/x"},
		"nothing":                       {},
		"ssh without known_hosts":       {URL: "ssh://git@host/x", Password: canary},
		"ssh without a key":             {URL: "ssh://git@host/x", KnownHosts: []byte("host " + key.line)},
		"ssh with half a key":           {URL: "ssh://git@host/x", KnownHosts: []byte("host " + key.line), SSHKey: "-----BEGIN " + canary},
		"a CA bundle that is none":      {URL: "https://host/x", CABundle: []byte(canary)},
		"ssh through an http proxy":     {URL: "ssh://git@host/x", KnownHosts: []byte("host " + key.line), Password: canary, Proxy: "http://u:" + canary + "@p:1"},
		"a proxy that is no URL":        {URL: "https://host/x", Proxy: canary + "%zz"},
		"a proxy of another scheme":     {URL: "https://host/x", Proxy: "ftp://u:" + canary + "@p"},
		"a user name with a colon":      {URL: "https://host/x", Username: "a:b"},
		"a user name with a line's end": {URL: "ssh://host/x", Username: "a\nb", KnownHosts: []byte("host " + key.line), Password: canary},
	}
	mirrors := &gitsource.Mirrors{Dir: t.TempDir()}
	for name, r := range remotes {
		t.Run(name, func(t *testing.T) {
			for _, err := range []error{r.Validate(), second(mirrors.Open(r))} {
				if err == nil || strings.Contains(err.Error(), canary) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	for _, good := range []string{
		"https://github.com/o/r", "https://github.com:8443/o/r.git", "https://[::1]:8443/r", "http://127.0.0.1:8080/r", "http://localhost/r",
		"http://[::1]/r", "file:///srv/git/r.git", "https://dev.azure.com/org/my%20project/_git/r",
	} {
		if err := (gitsource.Remote{URL: good}).Validate(); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

func TestB14SecretsAreNeverPrinted(t *testing.T) {
	r := gitsource.Remote{URL: "https://host/x", Username: "jane", Password: canary, Token: canary, SSHKey: canary, SSHPassphrase: canary, Proxy: canary}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		out := fmt.Sprintf(verb, r) + fmt.Sprintf(verb, &r) + fmt.Sprintf(verb, r.Password)
		if strings.Contains(out, canary) || strings.Contains(out, fmt.Sprintf("%x", canary)) {
			t.Errorf("%s shows a secret: %s", verb, out)
		}
	}
}

func TestB14SecretsAreInNoDocument(t *testing.T) {
	out, err := json.Marshal(struct {
		A gitsource.Remote
		B map[string]gitsource.Secret
		C *gitsource.Secret
	}{gitsource.Remote{Password: canary}, map[string]gitsource.Secret{"x": canary}, new(gitsource.Secret)})
	if err != nil || bytes.Contains(out, []byte(canary)) {
		t.Errorf("%s, %v", out, err)
	}
}

func TestCredentialsReachTheServer(t *testing.T) {
	server := gitserver.StartTLS(t)
	hash := server.Init("shop").Release("first", "a", "1")
	server.RequireLogin("jane", canary)
	remotes := map[string]gitsource.Remote{
		"a password": {Username: "jane", Password: canary},
		"a token":    {Username: "jane", Token: canary},
	}
	for name, r := range remotes {
		t.Run(name, func(t *testing.T) {
			r.URL, r.CABundle = server.URL("shop"), server.CA()
			if c := fetchTip(t, follow(open(t, r))); c.Hash != hash {
				t.Errorf("%+v", c)
			}
		})
	}
	t.Run("newer credentials of one identity", func(t *testing.T) {
		mirrors := &gitsource.Mirrors{Dir: t.TempDir()}
		r := gitsource.Remote{URL: server.URL("shop"), CABundle: server.CA(), Username: "jane", Password: "old", Credential: "shop/git"}
		m, err := mirrors.Open(r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = follow(m).Tip(t.Context())
		as[*gitsource.AuthError](t, err)
		r.Password = canary
		if again, err := mirrors.Open(r); err != nil || again != m {
			t.Fatalf("the mirror was not shared: %v", err)
		}
		fetchTip(t, follow(m))
	})
	t.Run("through a proxy that wants a password", func(t *testing.T) {
		var through atomic.Int64
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Proxy-Authorization") == "" || r.Header.Get("Authorization") != "" {
				w.WriteHeader(http.StatusProxyAuthRequired)
				return
			}
			to, err := net.Dial("tcp", r.Host)
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			through.Add(1)
			client, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			fmt.Fprint(client, "HTTP/1.1 200 OK\r\n\r\n")
			go func() { _, _ = io.Copy(to, client); _ = to.Close() }()
			_, _ = io.Copy(client, to)
			_ = client.Close()
		}))
		t.Cleanup(proxy.Close)
		u, err := url.Parse(proxy.URL)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("p", canary)
		r := gitsource.Remote{URL: server.URL("shop"), CABundle: server.CA(), Username: "jane", Password: canary, Proxy: gitsource.Secret(u.String())}
		fetchTip(t, follow(open(t, r)))
		if through.Load() == 0 {
			t.Error("nothing went through the proxy")
		}
		u.User = nil
		r.Proxy = gitsource.Secret(u.String())
		_, err = follow(open(t, r)).Tip(t.Context())
		as[*gitsource.UnreachableError](t, err)
	})
}
