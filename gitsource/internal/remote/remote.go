// Package remote asks a Git repository, over https, ssh or from a directory, where a branch stands and for what leads there.
package remote

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Secret is text that no log, error or document shows: however it is printed, it reads "***".
type Secret string

const hidden = "***"

func (Secret) String() string { return hidden }

// MarshalText hides the secret in every document: JSON, YAML, logs.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// Format covers every verb of fmt, %x and %q too.
func (Secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, hidden) }

// Remote says how a repository is reached.
type Remote struct {
	// URL is https://host/path, ssh://user@host/path, user@host:path, file:///path or, to a
	// loopback address only, http://host/path. It never holds a password or token.
	URL string

	// Username is "git" by default, for ssh only where the URL names nobody. With a token GitHub, GitLab
	// and Gitea take any; Bitbucket wants x-token-auth.
	Username string
	Password Secret // https and ssh
	Token    Secret // https: an access token, in place of Password

	SSHKey        Secret // PEM
	SSHPassphrase Secret
	KnownHosts    []byte // as ssh's known_hosts; ssh works with no host that is not in it

	CABundle []byte // PEM; trusted beside the system's
	Proxy    Secret // URL of an http, https or (the only one for ssh) socks5 proxy; it may hold a password

	// Credential is the identity of where the credentials came from, as "namespace/secret". A
	// mirror is shared only where URL and Credential are equal.
	Credential string
}

// Address is a URL, taken apart and free of secrets.
type Address struct {
	Scheme, User, Host, Port, Path string
}

var (
	hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?$`)
	userName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)
	scpForm  = regexp.MustCompile(`^(?:([^@/:]+)@)?([^@/:\[\]]+|\[[0-9A-Fa-f:.]+\]):([^:].*)$`)
)

// String is the URL in one spelling. It is printed in errors and names the mirror.
func (a Address) String() string {
	s := a.Scheme + "://"
	if a.User != "" {
		s += a.User + "@"
	}
	return s + a.hostPort() + a.Path
}

func (a Address) hostPort() string {
	if a.Port != "" {
		return net.JoinHostPort(a.Host, a.Port)
	}
	if strings.Contains(a.Host, ":") {
		return "[" + a.Host + "]"
	}
	return a.Host
}

// Validate reports the first thing that makes the remote unusable. It never repeats the URL, which
// may hold a password exactly when it is wrong.
func (r Remote) Validate() error {
	a, err := r.Address()
	if err != nil {
		return err
	}
	if err := r.checkProxy(a); err != nil {
		return err
	}
	switch a.Scheme {
	case "https":
		if len(r.CABundle) > 0 && !x509.NewCertPool().AppendCertsFromPEM(r.CABundle) {
			return errors.New("CA bundle of the repository: holds no certificate in PEM form")
		}
		if strings.ContainsFunc(r.Username, isControl) || strings.Contains(r.Username, ":") {
			return errors.New("user name of the repository: has a colon or a control character")
		}
	case "ssh":
		if len(r.KnownHosts) == 0 {
			return fmt.Errorf("repository %s: ssh needs known_hosts; take the host's key from its owner, not from the network", a)
		}
		if r.SSHKey == "" && r.Password == "" {
			return fmt.Errorf("repository %s: ssh needs a private key or a password", a)
		}
		if _, err := r.signer(); err != nil {
			return err
		}
	}
	return nil
}

// Address takes the URL apart and refuses what is none.
func (r Remote) Address() (Address, error) {
	bad := func(why string) (Address, error) {
		return Address{}, errors.New("repository URL: " + why)
	}
	switch {
	case r.URL == "":
		return bad("is empty")
	case len(r.URL) > 2048:
		return bad("is longer than 2048 bytes")
	case !utf8.ValidString(r.URL) || strings.ContainsFunc(r.URL, isControl) || strings.Contains(r.URL, " "):
		return bad("has a blank, a control character or is not UTF-8")
	}
	var a Address
	if strings.Contains(r.URL, "://") {
		u, err := url.Parse(r.URL)
		if err != nil {
			return bad("cannot be parsed")
		}
		if _, password := u.User.Password(); password || (u.User != nil && u.Scheme != "ssh") {
			return bad("holds a user name or password; put them into the credentials")
		}
		if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
			return bad("has a query or a fragment")
		}
		a = Address{Scheme: u.Scheme, User: u.User.Username(), Host: strings.ToLower(u.Hostname()), Port: u.Port(), Path: u.Path}
	} else if m := scpForm.FindStringSubmatch(r.URL); m != nil {
		a = Address{Scheme: "ssh", User: m[1], Host: strings.ToLower(strings.Trim(m[2], "[]")), Path: m[3]}
		if strings.HasPrefix(a.Path, "-") {
			return bad("has a path that begins with a dash")
		}
		if !strings.HasPrefix(a.Path, "/") {
			a.Path = "/~/" + a.Path // the home directory, as scp has it
		}
	} else {
		return bad("is neither https, ssh, user@host:path nor file")
	}
	if a.Scheme == "ssh" && a.User == "" {
		if a.User = r.Username; a.User == "" {
			a.User = "git"
		}
	}
	return a, a.check()
}

func (a *Address) check() error {
	bad := func(why string) error { return errors.New("repository URL: " + why) }
	switch a.Scheme {
	case "file":
		if a.Host != "" {
			return bad("a file URL has three slashes and no host")
		}
	case "https", "ssh", "http":
		if !hostName.MatchString(a.Host) && net.ParseIP(a.Host) == nil {
			return bad("has no valid host name")
		}
		if n, err := strconv.ParseUint(a.Port, 10, 16); a.Port != "" && (err != nil || n == 0) {
			return bad("has no valid port")
		}
	default:
		return bad("has a scheme other than https, ssh and file")
	}
	if a.Scheme == "http" && !isLoopback(a.Host) {
		return bad("http is for loopback addresses only; use https")
	}
	if a.Scheme == "ssh" && !userName.MatchString(a.User) {
		return bad("has no valid user name")
	}
	a.Path = strings.TrimRight(a.Path, "/")
	if a.Path == "" || a.Path == "/~" {
		return bad("has no path")
	}
	if strings.ContainsFunc(a.Path, isControl) {
		return bad("has a control character in its path")
	}
	for part := range strings.SplitSeq(a.Path, "/") {
		if part == ".." {
			return bad(`has ".." in its path`)
		}
	}
	return nil
}

func (r Remote) checkProxy(a Address) error {
	if r.Proxy == "" {
		return nil
	}
	u, err := url.Parse(string(r.Proxy))
	switch {
	case err != nil || u.Host == "":
		return errors.New("proxy of the repository: is no URL")
	case a.Scheme == "file" || a.Scheme == "http":
		return fmt.Errorf("repository %s: is reached without a proxy; take the proxy away", a)
	case u.Scheme == "socks5":
		return nil
	case a.Scheme == "ssh":
		return fmt.Errorf("repository %s: ssh goes through a socks5 proxy only", a)
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("proxy of the repository: is neither http, https nor socks5")
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) }

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
