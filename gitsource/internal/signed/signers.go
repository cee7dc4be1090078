package signed

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// allowedSigner is a line of an allowed_signers file. Its principals are names for the key's owner;
// Git, too, takes whom the key belongs to from here and not from the commit, which says what it likes.
type allowedSigner struct {
	principals  string
	key         ssh.PublicKey
	namespaces  []string // patterns; empty: all
	after, till time.Time
}

// allows reports why the line does not hold now. The date in a commit is its author's own claim, so it
// is not asked: a key that has expired cannot sign backdated commits.
func (a allowedSigner) allows(now time.Time) error {
	if !a.inNamespace() {
		return errors.New("is by an ssh key that is not trusted for Git")
	}
	if !a.after.IsZero() && now.Before(a.after) {
		return errors.New("is by an ssh key that is not valid yet")
	}
	if !a.till.IsZero() && now.After(a.till) {
		return errors.New("is by an ssh key that has expired")
	}
	return nil
}

func (a allowedSigner) inNamespace() bool {
	if len(a.namespaces) == 0 {
		return true
	}
	found := false
	for _, pattern := range a.namespaces {
		pattern, not := strings.CutPrefix(pattern, "!")
		if ok, err := path.Match(pattern, sshNamespace); err == nil && ok {
			if not {
				return false
			}
			found = true
		}
	}
	return found
}

// parseAllowedSigners reads lines of: principals [options] type key [comment].
func parseAllowedSigners(raw []byte) (out []allowedSigner, err error) {
	n := 0
	for line := range strings.Lines(string(raw)) {
		n++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		a, err := parseAllowedSigner(line)
		if err != nil {
			return nil, fmt.Errorf("allowed signers: line %d: %w", n, err)
		}
		out = append(out, a)
	}
	return out, nil
}

func parseAllowedSigner(line string) (a allowedSigner, err error) {
	var rest string
	if quoted, ok := strings.CutPrefix(line, `"`); ok {
		a.principals, rest, ok = strings.Cut(quoted, `"`)
		if !ok {
			return a, errors.New("a quotation does not end")
		}
	} else {
		i := strings.IndexAny(line, " \t")
		if i < 0 {
			return a, errors.New("has no key")
		}
		a.principals, rest = line[:i], line[i:]
	}
	// What is left is a line of authorized_keys: options, type, key, comment.
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(strings.TrimSpace(rest)))
	if err != nil {
		return a, errors.New("has no readable key")
	}
	a.key = key
	for _, option := range options {
		if err := a.option(option); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (a *allowedSigner) option(option string) (err error) {
	name, value, _ := strings.Cut(option, "=")
	value = strings.Trim(value, `"`)
	switch strings.ToLower(name) {
	case "namespaces":
		a.namespaces = strings.Split(value, ",")
	case "valid-after":
		a.after, err = parseKeyTime(value)
	case "valid-before":
		a.till, err = parseKeyTime(value)
	default: // cert-authority too: taken as a plain key it would trust the wrong signatures
		err = fmt.Errorf("option %.40q is not supported", name)
	}
	return err
}

// parseKeyTime reads YYYYMMDD[HHMM[SS]][Z]. ssh-keygen takes a time without Z as local; a reconciler's
// local time is UTC wherever it runs.
func parseKeyTime(s string) (time.Time, error) {
	s = strings.TrimSuffix(s, "Z")
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if t, err := time.Parse(layout, s); err == nil && len(s) == len(layout) {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("time %.20q is not YYYYMMDD[HHMM[SS]][Z]", s)
}
