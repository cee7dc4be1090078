package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/net/proxy"

	"github.com/nexus-platform/reconciler/gitsource/internal/limit"
)

// sshLink runs git-upload-pack on the other side. No ssh program, agent or ~/.ssh of this machine takes part.
type sshLink struct {
	addr   Address
	limits limit.Limits
	config ssh.ClientConfig
	dialer proxy.ContextDialer
}

// signer reads the private key. Its errors do not repeat the key.
func (r Remote) signer() (ssh.Signer, error) {
	if r.SSHKey == "" {
		return nil, nil
	}
	var key ssh.Signer
	var err error
	if r.SSHPassphrase != "" {
		key, err = ssh.ParsePrivateKeyWithPassphrase([]byte(r.SSHKey), []byte(r.SSHPassphrase))
	} else {
		key, err = ssh.ParsePrivateKey([]byte(r.SSHKey))
	}
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, errors.New("ssh key of the repository: needs a passphrase")
	case err != nil:
		return nil, errors.New("ssh key of the repository: cannot be read; it must be PEM, and the passphrase its own")
	}
	return key, nil
}

func newSSH(r Remote, addr Address, limits limit.Limits, scratch string) (*sshLink, error) {
	s := &sshLink{addr: addr, limits: limits, dialer: &net.Dialer{}}
	if s.addr.Port == "" {
		s.addr.Port = "22"
	}
	if r.Proxy != "" {
		u, err := url.Parse(string(r.Proxy))
		if err != nil {
			return nil, errors.New("proxy of the repository: is no URL")
		}
		d, err := proxy.FromURL(u, &net.Dialer{})
		if err != nil {
			return nil, errors.New("proxy of the repository: cannot be used")
		}
		var ok bool
		if s.dialer, ok = d.(proxy.ContextDialer); !ok {
			return nil, errors.New("proxy of the repository: cannot be used")
		}
	}
	s.config = ssh.ClientConfig{User: addr.User, ClientVersion: "SSH-2.0-nexus-reconciler"}
	key, err := r.signer()
	if err != nil {
		return nil, err
	}
	if key != nil {
		s.config.Auth = append(s.config.Auth, ssh.PublicKeys(key))
	}
	if r.Password != "" {
		s.config.Auth = append(s.config.Auth, ssh.Password(string(r.Password)))
	}
	return s, s.trust(r.KnownHosts, scratch)
}

// trust reads known_hosts. The library wants a file, so there is one for that moment.
func (s *sshLink) trust(hosts []byte, scratch string) error {
	f, err := os.CreateTemp(scratch, "known_hosts")
	if err != nil {
		return fmt.Errorf("write known_hosts: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(hosts)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write known_hosts: %w", err)
	}
	known, err := knownhosts.New(f.Name())
	if err != nil {
		return errors.New("known_hosts of the repository: cannot be read")
	}
	host := net.JoinHostPort(s.addr.Host, s.addr.Port)
	s.config.HostKeyCallback = func(name string, from net.Addr, key ssh.PublicKey) error {
		err := known(name, from, key)
		var wrong *knownhosts.KeyError
		var revoked *knownhosts.RevokedError
		if errors.As(err, &wrong) && len(wrong.Want) == 0 {
			return &HostKeyError{Host: s.addr.Host}
		}
		if errors.As(err, &wrong) || errors.As(err, &revoked) {
			return &HostKeyError{Host: s.addr.Host, Fingerprint: ssh.FingerprintSHA256(key)}
		}
		return err
	}
	s.config.HostKeyAlgorithms = algorithms(known, host)
	return nil
}

// algorithms asks the server for the kinds of key that are known: it would else choose one that is
// not, and its true key would look changed. An empty key makes the library tell what it knows.
func algorithms(known ssh.HostKeyCallback, host string) (names []string) {
	var wrong *knownhosts.KeyError
	if !errors.As(known(host, &net.TCPAddr{}, noKey{}), &wrong) {
		return nil
	}
	for _, k := range wrong.Want {
		if k.Key.Type() == ssh.KeyAlgoRSA {
			names = append(names, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			names = append(names, k.Key.Type())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

type noKey struct{}

func (noKey) Type() string                        { return "" }
func (noKey) Marshal() []byte                     { return nil }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

// conversation is one run of git-upload-pack.
type conversation struct {
	client *ssh.Client
	in     io.WriteCloser
	out    *packets
	advert advert
}

func (c *conversation) close() { _ = c.client.Close() }

// start connects and reads what the server says first. ctx ends it in every state: the library
// itself cannot be stopped during the handshake.
func (s *sshLink) start(ctx context.Context, ref string, w *watch) (*conversation, error) {
	host := net.JoinHostPort(s.addr.Host, s.addr.Port)
	conn, err := s.dialer.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	w.next("ssh handshake")
	config := s.config
	link, channels, requests, err := ssh.NewClientConn(conn, host, &config)
	if err != nil {
		_ = conn.Close()
		return nil, s.explainHandshake(err)
	}
	c := &conversation{client: ssh.NewClient(link, channels, requests)}
	if err := s.run(c, ref, w); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (s *sshLink) run(c *conversation, ref string, w *watch) error {
	session, err := c.client.NewSession()
	if err != nil {
		return err
	}
	if c.in, err = session.StdinPipe(); err != nil {
		return err
	}
	out, err := session.StdoutPipe()
	if err != nil {
		return err
	}
	c.out = newPackets(out)
	_ = session.Setenv("GIT_PROTOCOL", "version=2") // a server may refuse that, and answers in version 0
	if err := session.Start("git-upload-pack " + quote(sshPath(s.addr.Path))); err != nil {
		return err
	}
	w.next("list refs")
	if c.advert, err = readAdvert(c.out, ref, s.limits.Refs); errors.Is(err, io.EOF) {
		return &AuthError{URL: s.addr.String()} // forges say "not found" on stderr and hang up
	}
	return err
}

func (s *sshLink) explainHandshake(err error) error {
	if isTyped(err) {
		return err
	}
	var refused *ssh.ServerAuthError
	if errors.As(err, &refused) || strings.Contains(err.Error(), "unable to authenticate") {
		return &AuthError{URL: s.addr.String()}
	}
	return err
}

func (s *sshLink) tip(ctx context.Context, ref string, w *watch) (string, error) {
	c, err := s.start(ctx, ref, w)
	if err != nil {
		return "", err
	}
	defer c.close()
	if !c.advert.v2 {
		return c.advert.tip, nil
	}
	if _, err := c.in.Write(askTip(ref)); err != nil {
		return "", err
	}
	return readTip(c.out, ref, s.limits.Refs)
}

func (s *sshLink) pack(ctx context.Context, q query, w *watch) (io.Reader, func(), error) {
	c, err := s.start(ctx, q.ref, w)
	if err != nil {
		return nil, nil, err
	}
	if err := c.ask(q, s.addr.String()); err != nil {
		c.close()
		return nil, nil, err
	}
	w.next("wait for the pack")
	return &band{p: c.out, v2: c.advert.v2}, c.close, nil
}

func (c *conversation) ask(q query, url string) error {
	want, err := q.wanted(c.advert, url)
	if err != nil {
		return err
	}
	ask, err := askPack(c.advert, want, q.haves)
	if err != nil {
		return err
	}
	_, err = c.in.Write(ask)
	return err
}

// sshPath turns /~/x, as the scp form is kept, and /~user/x into what the other side's shell user has.
func sshPath(p string) string {
	if rest, ok := strings.CutPrefix(p, "/~/"); ok {
		return rest
	}
	if strings.HasPrefix(p, "/~") {
		return p[1:]
	}
	return p
}

// quote makes one word for the other side's shell, as Git's sq_quote does.
func quote(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}
