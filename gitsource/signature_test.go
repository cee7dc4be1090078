package gitsource_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	pgp "github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/nexus-platform/reconciler/e2e/gitserver"
	"github.com/nexus-platform/reconciler/gitsource"
)

// signer makes the armored signature of a commit's bytes.
type signer func(payload []byte) string

func pgpKey(t *testing.T, name string, config *pgp.Config) (*openpgp.Entity, string) {
	t.Helper()
	if config == nil {
		config = &pgp.Config{}
	}
	config.Algorithm = pgp.PubKeyAlgoEdDSA
	e, err := openpgp.NewEntity(name, "", name+"@example.com", config)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := armor.Encode(&out, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return e, out.String() + "\n"
}

func byPGP(t *testing.T, e *openpgp.Entity, at time.Time) signer {
	return func(payload []byte) string {
		var out bytes.Buffer
		config := &pgp.Config{Time: func() time.Time { return at }}
		if err := openpgp.ArmoredDetachSign(&out, e, bytes.NewReader(payload), config); err != nil {
			t.Fatal(err)
		}
		return out.String() + "\n"
	}
}

func bySSH(t *testing.T, key ssh.Signer, namespace string) signer {
	return func(payload []byte) string {
		sig, err := sshsig.Sign(bytes.NewReader(payload), key, sshsig.HashSHA512, namespace)
		if err != nil {
			t.Fatal(err)
		}
		return string(sshsig.Armor(sig))
	}
}

// signedCommit makes a commit object out of the last one, as git commit -S would, and pushes it.
// change may spoil the bytes after they were signed.
func signedCommit(repo *gitserver.Repo, sign signer, change func(string) string) string {
	head, message, _ := strings.Cut(repo.Git("cat-file", "commit", "HEAD")+"\n", "\n\n")
	raw := head + "\n\n" + message
	if sign != nil {
		raw = withSignature(raw, "gpgsig", sign([]byte(raw)))
	}
	if change != nil {
		raw = change(raw)
	}
	hash := repo.GitInput(raw, "hash-object", "-t", "commit", "-w", "--literally", "--stdin")
	repo.Git("push", "-q", "--force", "origin", hash+":refs/heads/main")
	repo.Git("reset", "-q", "--hard", hash)
	return hash
}

func withSignature(raw, header, signature string) string {
	head, message, _ := strings.Cut(raw, "\n\n")
	return head + "\n" + header + " " + strings.ReplaceAll(strings.TrimSuffix(signature, "\n"), "\n", "\n ") + "\n\n" + message
}

func trust(t *testing.T, keyrings, allowed, revoked string) *gitsource.Signatures {
	t.Helper()
	s, err := gitsource.ParseSignatures([]byte(keyrings), []byte(allowed), []byte(revoked))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestB17Signatures(t *testing.T) {
	now := time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)
	past := func() time.Time { return now.AddDate(-1, 0, 0) }
	jane, janeRing := pgpKey(t, "jane", &pgp.Config{Time: past})
	mallory, _ := pgpKey(t, "mallory", &pgp.Config{Time: past})
	expired, expiredRing := pgpKey(t, "expired", &pgp.Config{Time: past, KeyLifetimeSecs: 3600})
	_, otherRing := pgpKey(t, "other", nil)
	key, stranger := newSSHKey(t, ""), newSSHKey(t, "")
	allow := func(options string) string { return "jane@example.com " + options + " " + key.line + " comment\n" }
	pgpKeys, sshKeys := trust(t, otherRing+janeRing+expiredRing, "", ""), trust(t, "", "# people\n\n"+allow(""), "")
	byJane, byKey := byPGP(t, jane, now), bySSH(t, key.signer, "git")
	otherTree := func(raw string) string {
		return "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904" + raw[len("tree ")+40:]
	}
	cases := []struct {
		name   string
		trust  *gitsource.Signatures
		sign   signer
		change func(string) string
		signer string // of a good one
		reason string // of a bad one
	}{
		{"good, OpenPGP", pgpKeys, byJane, nil, "jane <jane@example.com>", ""},
		{"good, ssh", sshKeys, byKey, nil, "jane@example.com", ""},
		{"good, ssh, all options", trust(t, "", allow(`namespaces="git,file",valid-after="20300101",valid-before="20310101000000Z"`), ""), byKey, nil, "jane@example.com", ""},
		{"good, ssh, namespace by pattern", trust(t, "", allow(`namespaces="g*"`), ""), byKey, nil, "jane@example.com", ""},
		{"good, ssh, quoted principals", trust(t, "", `"jane, doe" `+key.line, ""), byKey, nil, "jane, doe", ""},
		{"good, ssh, a second line holds", trust(t, "", allow(`valid-before="20200101"`)+allow(""), ""), byKey, nil, "jane@example.com", ""},
		{"none", pgpKeys, nil, nil, "", "is missing"},
		{"empty", pgpKeys, func([]byte) string { return "" }, nil, "", "is missing"},
		{"unknown OpenPGP key", pgpKeys, byPGP(t, mallory, now), nil, "", "not trusted"},
		{"unknown ssh key", sshKeys, bySSH(t, stranger.signer, "git"), nil, "", "not trusted"},
		{"an ssh signature where only OpenPGP is trusted", pgpKeys, byKey, nil, "", "not trusted"},
		{"an OpenPGP signature where only ssh is trusted", sshKeys, byJane, nil, "", "not trusted"},
		{"expired OpenPGP key", pgpKeys, byPGP(t, expired, past().Add(time.Minute)), nil, "", "expired"},
		{"expired ssh key", trust(t, "", allow(`valid-before="20300531"`), ""), byKey, nil, "", "expired"},
		{"ssh key not valid yet", trust(t, "", allow(`valid-after="203006011201"`), ""), byKey, nil, "", "not valid yet"},
		{"revoked ssh key", trust(t, "", allow(""), stranger.line+"\n"+key.line+"\n"), byKey, nil, "", "revoked"},
		{"ssh signature of a file", sshKeys, bySSH(t, key.signer, "file"), nil, "", "other than Git"},
		{"ssh key for files only", trust(t, "", allow(`namespaces="file"`), ""), byKey, nil, "", "not trusted for Git"},
		{"ssh key for all but Git", trust(t, "", allow(`namespaces="*,!git"`), ""), byKey, nil, "", "not trusted for Git"},
		{"another tree, OpenPGP", pgpKeys, byJane, otherTree, "", "does not fit"},
		{"another tree, ssh", sshKeys, byKey, otherTree, "", "does not fit"},
		{"another message", sshKeys, byKey, func(s string) string { return s + "and more\n" }, "", "does not fit"},
		{"of another commit", sshKeys, func([]byte) string { return byKey([]byte("something else")) }, nil, "", "does not fit"},
		{"unknown kind", sshKeys, func([]byte) string { return "-----BEGIN SIGNED MESSAGE-----\nx\n" }, nil, "", "unknown kind"},
		{"no signature inside the armor", sshKeys, func([]byte) string { return "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n" }, nil, "", "malformed"},
		{"one more for another hash function", sshKeys, byKey, func(s string) string { return withSignature(s, "gpgsig-sha256", "-----BEGIN") }, "", "another hash function"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := gitserver.Start(t)
			repo := server.Init("shop")
			repo.Release("first", "a", "1")
			hash := signedCommit(repo, c.sign, c.change)
			s := &gitsource.Source{Mirror: open(t, gitsource.Remote{URL: server.URL("shop")}), Branch: "main", Signatures: c.trust, Now: func() time.Time { return now }}
			got, err := s.Fetch(t.Context(), hash, "")
			if c.reason == "" {
				if err != nil || !strings.HasPrefix(got.Signer, c.signer) {
					t.Errorf("signer %q, %v", got.Signer, err)
				}
				return
			}
			if e := as[*gitsource.SignatureError](t, err); e.Commit != hash || !strings.Contains(e.Reason, c.reason) {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestB17HeadersThatParsersReadDifferently(t *testing.T) {
	key := newSSHKey(t, "")
	allowed := trust(t, "", "jane "+key.line, "")
	insert := func(before, line string) func(string) string {
		return func(raw string) string { return strings.Replace(raw, before, line+before, 1) }
	}
	evil := "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"
	changes := map[string]func(string) string{
		"a second tree before the first":        func(raw string) string { return evil + raw },
		"a second tree after the first":         insert("author ", evil),
		"a second tree after the committer":     insert("gpgsig ", evil),
		"a second tree after the signature":     insert("\n\n", "\n"+strings.TrimSuffix(evil, "\n")),
		"a parent after the author":             insert("committer ", "parent "+someHash+"\n"),
		"a parent after the committer":          insert("gpgsig ", "parent "+someHash+"\n"),
		"a second author":                       insert("committer ", "author X <x@y> 1 +0000\n"),
		"a second committer":                    insert("gpgsig ", "committer X <x@y> 1 +0000\n"),
		"a second signature":                    func(raw string) string { return withSignature(raw, "gpgsig", "-----BEGIN SSH SIGNATURE-----") },
		"a NUL in the header":                   insert("gpgsig ", "x y\x00z\n"),
		"a header without a value":              insert("gpgsig ", "novalue\n"),
		"a header whose name begins with a tab": insert("gpgsig ", "\ttree x\n"),
		"a tree in upper case":                  func(raw string) string { return "tree " + strings.ToUpper(raw[5:45]) + raw[45:] },
		"a tree that is too long":               func(raw string) string { return raw[:45] + "0" + raw[45:] },
		"a continued tree":                      func(raw string) string { return raw[:45] + "\n x" + raw[45:] },
		"the author before the tree":            func(raw string) string { return "author X <x@y> 1 +0000\n" + raw },
		"no committer": func(raw string) string {
			i := strings.Index(raw, "committer")
			return raw[:i] + raw[strings.Index(raw, "gpgsig"):]
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := gitserver.Start(t)
			repo := server.Init("shop")
			repo.Release("first", "a", "1")
			// Git itself would not carry some of these: the server sends them as they are.
			raw := withSignature(repo.Git("cat-file", "commit", "HEAD")+"\n", "gpgsig", bySSH(t, key.signer, "git")([]byte(repo.Git("cat-file", "commit", "HEAD")+"\n")))
			spoiled := change(raw)
			if spoiled == raw {
				t.Fatal("nothing was changed")
			}
			hash, url := serveCommit(t, repo, spoiled)
			s := &gitsource.Source{Mirror: open(t, gitsource.Remote{URL: url}), Branch: "main", Signatures: allowed}
			_, err := s.Fetch(t.Context(), hash, "")
			as[*gitsource.CommitError](t, err)
		})
	}
}

func TestASignatureOfRealGit(t *testing.T) {
	key := newSSHKey(t, "")
	dir := t.TempDir()
	private := filepath.Join(dir, "key")
	if err := os.WriteFile(private, []byte(key.pem), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(private+".pub", []byte(key.line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := gitserver.Start(t)
	repo := server.Init("shop")
	repo.Git("config", "gpg.format", "ssh")
	repo.Git("config", "user.signingkey", private)
	repo.Git("config", "commit.gpgsign", "true")
	repo.Release("first\n\nwith a body\n\nand -----BEGIN SSH SIGNATURE-----", "a", "1")
	s := follow(open(t, gitsource.Remote{URL: server.URL("shop")}))
	s.Signatures = trust(t, "", "jane "+key.line, "")
	if c := fetchTip(t, s); !strings.HasPrefix(c.Signer, "jane (SHA256:") {
		t.Errorf("%+v", c)
	}
}

func TestEveryNewCommitOrTheTipAlone(t *testing.T) {
	key := newSSHKey(t, "")
	sign := bySSH(t, key.signer, "git")
	server := gitserver.Start(t)
	repo := server.Init("shop")
	old := repo.Release("before anybody signed", "a", "1")
	repo.Release("first", "a", "2")
	first := signedCommit(repo, sign, nil)
	unsigned := repo.Release("unsigned", "a", "3")
	repo.Release("last", "a", "4")
	last := signedCommit(repo, sign, nil)
	m := open(t, gitsource.Remote{URL: server.URL("shop")})
	tip := &gitsource.Source{Mirror: m, Branch: "main", Signatures: trust(t, "", "jane "+key.line, "")}
	every := &gitsource.Source{Mirror: m, Branch: "main", Signatures: trust(t, "", "jane "+key.line, "")}
	every.Signatures.Every = true
	cases := []struct {
		name           string
		source         *gitsource.Source
		hash, lastGood string
		unsigned       string
	}{
		{"the tip alone", tip, last, old, ""},
		{"the tip alone, unsigned", tip, unsigned, first, unsigned},
		{"every, with an unsigned one between", every, last, first, unsigned},
		{"every, from an unsigned but admitted one", every, first, old, ""},
		{"every, after the unsigned one", every, last, unsigned, ""},
		{"every, with nothing to begin from", every, last, "", ""},
		{"the last good one is not asked again", every, unsigned, unsigned, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.source.Fetch(t.Context(), c.hash, c.lastGood)
			if c.unsigned == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if e := as[*gitsource.SignatureError](t, err); e.Commit != c.unsigned {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestTrustThatIsRefused(t *testing.T) {
	key := newSSHKey(t, "")
	_, ring := pgpKey(t, "jane", nil)
	for name, c := range map[string][3]string{
		"nothing at all":             {},
		"a keyring that is none":     {"hello", "", ""},
		"a broken keyring":           {strings.Replace(ring, "m", "!", 3), "", ""},
		"a key without principals":   {"", key.line, ""},
		"a line without a key":       {"", "jane", ""},
		"a certificate authority":    {"", "jane cert-authority " + key.line, ""},
		"an option that is unknown":  {"", "jane no-such-option " + key.line, ""},
		"a time that is none":        {"", `jane valid-before="tomorrow" ` + key.line, ""},
		"a quotation without end":    {"", `"jane ` + key.line, ""},
		"revoked keys that are none": {ring, "", "hello"},
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := gitsource.ParseSignatures([]byte(c[0]), []byte(c[1]), []byte(c[2])); err == nil {
				t.Errorf("taken: %s", fmt.Sprint(s))
			}
		})
	}
}
