// Package signed proves by whom a commit was signed: with OpenPGP or ssh keys, and only with those that are trusted.
package signed

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/nexus-platform/reconciler/gitsource/internal/objects"
)

// Trust says whose signatures make a commit trusted. Make it with Parse.
type Trust struct {
	// Every asks each commit since the last good one for a signature, instead of the tip alone. (The
	// tip's signature covers its files and, by their hashes, its history.)
	Every bool

	pgp     openpgp.EntityList
	ssh     []allowedSigner
	revoked map[string]bool // marshalled ssh keys
}

const sshNamespace = "git"

// Parse reads what is trusted: keyrings holds OpenPGP public keys, armored, any number of
// blocks; allowed is in the format of ssh-keygen's ALLOWED SIGNERS; revoked lists ssh public keys, one
// a line, that are no longer trusted.
func Parse(keyrings, allowed, revoked []byte) (*Trust, error) {
	s := &Trust{revoked: make(map[string]bool)}
	var err error
	if s.pgp, err = parseKeyrings(keyrings); err != nil {
		return nil, err
	}
	if s.ssh, err = parseAllowedSigners(allowed); err != nil {
		return nil, err
	}
	for rest := bytes.TrimSpace(revoked); len(rest) > 0; {
		var key ssh.PublicKey
		if key, _, _, rest, err = ssh.ParseAuthorizedKey(rest); err != nil {
			return nil, errors.New("revoked ssh keys: cannot be read; each line is the type and the key")
		}
		s.revoked[string(key.Marshal())] = true
	}
	if len(s.pgp) == 0 && len(s.ssh) == 0 {
		return nil, errors.New("trusted keys: there are none, so that no commit could be admitted")
	}
	return s, nil
}

func parseKeyrings(raw []byte) (keys openpgp.EntityList, err error) {
	const begin = "-----BEGIN "
	for i, block := range strings.Split(string(raw), begin) {
		if i == 0 {
			if strings.TrimSpace(block) != "" {
				return nil, errors.New("keyring: does not begin with an armored key")
			}
			continue
		}
		list, err := openpgp.ReadArmoredKeyRing(strings.NewReader(begin + block))
		if err != nil {
			return nil, fmt.Errorf("keyring: block %d: %w", i, err)
		}
		for _, e := range list {
			if e.PrivateKey != nil {
				return nil, errors.New("keyring: holds a private key; only public keys belong here")
			}
		}
		keys = append(keys, list...)
	}
	return keys, nil
}

// Verify proves a commit's signature over its bytes as they are stored, and returns the signer. Its
// error completes the sentence "the signature …".
func (s *Trust) Verify(c objects.Commit, now time.Time) (signer string, err error) {
	armor := string(c.Signature)
	switch {
	case c.Foreign:
		return "", errors.New("is there a second time, for another hash function")
	case strings.TrimSpace(armor) == "":
		return "", errors.New("is missing")
	case strings.HasPrefix(armor, "-----BEGIN PGP SIGNATURE-----\n"):
		return s.verifyPGP(c, now)
	case strings.HasPrefix(armor, "-----BEGIN SSH SIGNATURE-----\n"):
		return s.verifySSH(c, now)
	}
	return "", errors.New("is of an unknown kind")
}

func (s *Trust) verifyPGP(c objects.Commit, now time.Time) (string, error) {
	config := &packet.Config{Time: func() time.Time { return now }}
	who, err := openpgp.CheckArmoredDetachedSignature(s.pgp, bytes.NewReader(c.Payload), bytes.NewReader(c.Signature), config)
	switch {
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return "", errors.New("is by an OpenPGP key that is not trusted")
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return "", errors.New("is by an OpenPGP key that has expired")
	case errors.Is(err, pgperrors.ErrSignatureExpired):
		return "", errors.New("has expired")
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return "", errors.New("is by an OpenPGP key that was revoked")
	case err != nil || who == nil:
		return "", errors.New("does not fit the commit")
	}
	name := "key " + who.PrimaryKey.KeyIdString()
	if id := who.PrimaryIdentity(); id != nil {
		name = id.Name + " (" + name + ")"
	}
	return name, nil
}

func (s *Trust) verifySSH(c objects.Commit, now time.Time) (string, error) {
	sig, err := sshsig.Unarmor(c.Signature)
	if err != nil {
		return "", errors.New("is malformed")
	}
	if sig.Namespace != sshNamespace {
		return "", errors.New("was made for something other than Git")
	}
	key := string(sig.PublicKey.Marshal())
	if s.revoked[key] {
		return "", errors.New("is by an ssh key that was revoked")
	}
	why := errors.New("is by an ssh key that is not trusted")
	for _, a := range s.ssh {
		if string(a.key.Marshal()) != key {
			continue
		}
		if why = a.allows(now); why != nil {
			continue
		}
		if err := sshsig.Verify(bytes.NewReader(c.Payload), sig, a.key, sig.HashAlgorithm, sshNamespace); err != nil {
			return "", errors.New("does not fit the commit")
		}
		return fmt.Sprintf("%s (%s)", a.principals, ssh.FingerprintSHA256(a.key)), nil
	}
	return "", why
}
