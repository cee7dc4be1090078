package gitsource_test

import (
	"bytes"
	"compress/zlib"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/nexus-platform/reconciler/e2e/gitserver"
	"github.com/nexus-platform/reconciler/gitsource"
)

func deflate(b []byte) []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// sshKey is a key pair; line is its public half as known_hosts has it, after the host.
type sshKey struct {
	signer ssh.Signer
	pem    string
	line   string
}

func newHostKey(t *testing.T) sshKey { return newSSHKey(t, "") }

func newSSHKey(t *testing.T, passphrase string) sshKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return sshKey{signer, string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))}
}

// sshServer runs git-upload-pack for one client key.
type sshServer struct {
	address string
	refuses string // what it says on stderr instead of running anything
	v0      bool
}

func startSSH(t *testing.T, s *sshServer, client ssh.PublicKey, hosts ...sshKey) *sshServer {
	t.Helper()
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(key.Marshal(), client.Marshal()) {
			return nil, fmt.Errorf("who are you?")
		}
		return nil, nil
	}}
	for _, h := range hosts {
		config.AddHostKey(h.signer)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s.address = l.Addr().String()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn, config)
		}
	}()
	return s
}

func (s *sshServer) serve(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for open := range channels {
		channel, requests, err := open.Accept()
		if err != nil {
			return
		}
		go s.session(channel, requests)
	}
}

func (s *sshServer) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	env := []string{"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1"}
	for r := range requests {
		var text struct{ A, B string }
		switch r.Type {
		case "env":
			_ = ssh.Unmarshal(r.Payload, &text)
			if !s.v0 {
				env = append(env, text.A+"="+text.B)
			}
			_ = r.Reply(!s.v0, nil)
		case "exec":
			var command struct{ Line string }
			_ = ssh.Unmarshal(r.Payload, &command)
			_ = r.Reply(true, nil)
			if s.refuses != "" {
				fmt.Fprintln(channel.Stderr(), s.refuses)
				_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ N uint32 }{128}))
				return
			}
			cmd := exec.Command("sh", "-c", command.Line)
			cmd.Env, cmd.Stdout, cmd.Stderr = env, channel, io.Discard
			in, err := cmd.StdinPipe()
			if err != nil || cmd.Start() != nil {
				return
			}
			go func() { _, _ = io.Copy(in, channel); _ = in.Close() }()
			_ = cmd.Wait()
			_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ N uint32 }{0}))
			return
		}
	}
}

func TestSSH(t *testing.T) {
	git := gitserver.Start(t)
	repo := git.Init("it's")
	hash := repo.Release("first", "a", "1")
	host, client, locked := newHostKey(t), newSSHKey(t, ""), newSSHKey(t, canary)
	for _, v0 := range []bool{false, true} {
		t.Run(fmt.Sprintf("with only version 0: %t", v0), func(t *testing.T) {
			server := startSSH(t, &sshServer{v0: v0}, client.signer.PublicKey(), host)
			m := open(t, gitsource.Remote{
				URL: "ssh://git@" + server.address + git.Dir("it's"), SSHKey: gitsource.Secret(client.pem),
				KnownHosts: []byte(knownhosts.Normalize(server.address) + " " + host.line),
			})
			s := follow(m)
			if c := fetchTip(t, s); c.Hash != hash {
				t.Errorf("%+v", c)
			}
			hash = repo.Release("again", "a", fmt.Sprint(v0))
			if c := fetchTip(t, s); c.Hash != hash {
				t.Errorf("%+v", c)
			}
			if _, err := follow(m).Fetch(t.Context(), strings.Repeat("1", 40), ""); err == nil {
				t.Error("a commit that does not exist was fetched")
			}
			_, err := (&gitsource.Source{Mirror: m, Branch: "gone"}).Tip(t.Context())
			as[*gitsource.BranchMissingError](t, err)
		})
	}
	t.Run("with a passphrase", func(t *testing.T) {
		server := startSSH(t, &sshServer{}, locked.signer.PublicKey(), host)
		r := gitsource.Remote{
			URL: "ssh://git@" + server.address + git.Dir("it's"), SSHKey: gitsource.Secret(locked.pem),
			KnownHosts: []byte(knownhosts.Normalize(server.address) + " " + host.line),
		}
		if err := r.Validate(); err == nil {
			t.Error("a locked key was taken without its passphrase")
		}
		r.SSHPassphrase = canary
		fetchTip(t, follow(open(t, r)))
	})
	t.Run("a forge that refuses on stderr", func(t *testing.T) {
		server := startSSH(t, &sshServer{refuses: "ERROR: " + canary + " not found"}, client.signer.PublicKey(), host)
		m := open(t, gitsource.Remote{
			URL: "ssh://git@" + server.address + "/x", SSHKey: gitsource.Secret(client.pem),
			KnownHosts: []byte(knownhosts.Normalize(server.address) + " " + host.line),
		})
		_, err := follow(m).Tip(t.Context())
		as[*gitsource.AuthError](t, err)
	})
	t.Run("a key that the server does not know", func(t *testing.T) {
		server := startSSH(t, &sshServer{}, client.signer.PublicKey(), host)
		m := open(t, gitsource.Remote{
			URL: "ssh://git@" + server.address + "/x", SSHKey: gitsource.Secret(newSSHKey(t, "").pem),
			KnownHosts: []byte(knownhosts.Normalize(server.address) + " " + host.line),
		})
		_, err := follow(m).Tip(t.Context())
		as[*gitsource.AuthError](t, err)
	})
}

func TestB15HostKeys(t *testing.T) {
	host, other, client := newHostKey(t), newHostKey(t), newSSHKey(t, "")
	server := startSSH(t, &sshServer{}, client.signer.PublicKey(), host)
	name := knownhosts.Normalize(server.address)
	for _, c := range []struct{ name, known, fingerprint string }{
		{"the key has changed", name + " " + other.line, ssh.FingerprintSHA256(host.signer.PublicKey())},
		{"the host is unknown", "elsewhere.example.com " + host.line, ""},
		{"the key was revoked", name + " " + host.line + "\n@revoked " + name + " " + host.line, ssh.FingerprintSHA256(host.signer.PublicKey())},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := open(t, gitsource.Remote{URL: "ssh://git@" + server.address + "/x", SSHKey: gitsource.Secret(client.pem), KnownHosts: []byte(c.known)})
			_, err := follow(m).Tip(t.Context())
			if e := as[*gitsource.HostKeyError](t, err); e.Fingerprint != c.fingerprint {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestTheServerIsAskedForTheKindOfKeyThatIsKnown(t *testing.T) {
	git := gitserver.Start(t)
	git.Init("shop").Release("first", "a", "1")
	known, client := newHostKey(t), newSSHKey(t, "")
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	server := startSSH(t, &sshServer{}, client.signer.PublicKey(), sshKey{signer: ec}, known)
	for name, line := range map[string]string{
		"plain":  knownhosts.Normalize(server.address) + " " + known.line,
		"hashed": knownhosts.HashHostname(knownhosts.Normalize(server.address)) + " " + known.line,
		"ecdsa":  knownhosts.Normalize(server.address) + " " + string(ssh.MarshalAuthorizedKey(ec.PublicKey())),
	} {
		t.Run(name, func(t *testing.T) {
			fetchTip(t, follow(open(t, gitsource.Remote{
				URL: "ssh://git@" + server.address + git.Dir("shop"), SSHKey: gitsource.Secret(client.pem), KnownHosts: []byte(line),
			})))
		})
	}
}
