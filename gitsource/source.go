package gitsource

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/nexus-platform/reconciler/gitsource/internal/objects"
	"github.com/nexus-platform/reconciler/gitsource/internal/signed"
)

// Signatures says whose signatures make a commit trusted. Every asks each commit since the last good
// one for a signature, instead of the tip alone.
type Signatures = signed.Trust

// ParseSignatures reads what is trusted: keyrings holds OpenPGP public keys, armored, any number of
// blocks; allowed is in the format of ssh-keygen's ALLOWED SIGNERS; revoked lists ssh public keys, one
// a line, that are no longer trusted.
func ParseSignatures(keyrings, allowed, revoked []byte) (*Signatures, error) {
	return signed.Parse(keyrings, allowed, revoked)
}

// Rewrite says what to do when a branch no longer descends from the last good commit.
type Rewrite string

// The two ways to take a rewritten branch. The zero Rewrite refuses.
const (
	RefuseRewrite Rewrite = "refuse"
	FollowRewrite Rewrite = "follow"
)

// Source is one branch of a repository as one environment follows it. Its fields are set before use.
type Source struct {
	Mirror     *Mirror
	Branch     string // short: "main" is refs/heads/main
	Rewrite    Rewrite
	Signatures *Signatures      // nil: signatures are not asked for
	MaxAge     time.Duration    // how old an answer, got by another source of the mirror, Tip may take; 0: none
	Now        func() time.Time // by which keys expire; nil: time.Now
}

// Validate reports what makes the source unusable.
func (s *Source) Validate() error {
	full := plumbing.NewBranchReferenceName(s.Branch)
	switch {
	case len(s.Branch) > objects.MaxName:
		return fmt.Errorf("branch: its name is longer than %d bytes", objects.MaxName)
	case strings.HasPrefix(s.Branch, "refs/"):
		return fmt.Errorf("branch %q: is a full ref; give its short name", s.Branch)
	case strings.ContainsFunc(s.Branch, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '%' }), full.Validate() != nil, strings.HasPrefix(s.Branch, "-"):
		return fmt.Errorf("branch %.100q: is no valid name of a branch", s.Branch)
	case s.Rewrite != "" && s.Rewrite != RefuseRewrite && s.Rewrite != FollowRewrite:
		return fmt.Errorf("rewrite %q: is neither refuse nor follow", s.Rewrite)
	}
	return nil
}

// Tip asks the repository, in one request, for the commit that the branch points at. It returns
// *BranchMissingError, *AuthError, *UnreachableError, *HostKeyError, *RedirectError or *LimitError, or
// the error of ctx.
func (s *Source) Tip(ctx context.Context) (string, error) {
	if err := s.Validate(); err != nil {
		return "", err
	}
	return s.Mirror.askTip(ctx, s.Branch, s.MaxAge)
}

// Fetch brings a commit of the branch with its history into the mirror, unless it is there, and
// admits it: it descends from lastGood (else *RewrittenError, unless rewrites are followed), and is
// signed as demanded (else *SignatureError). lastGood is the commit that the environment stands on,
// empty if there is none, or if a person asks for an older commit; it was admitted before, and is not
// asked for its signature again.
//
// Beside these and the errors of Tip it returns *PackError, *CommitError, *CorruptError, *DiskError,
// and *UnknownCommitError if the branch moved meanwhile and no longer holds hash. The mirror is
// whole after each of them.
func (s *Source) Fetch(ctx context.Context, hash, lastGood string) (Commit, error) {
	want, ok := objects.ParseHash(hash)
	if !ok {
		return Commit{}, &UnknownCommitError{Hash: hash}
	}
	if err := s.Validate(); err != nil {
		return Commit{}, err
	}
	if err := s.Mirror.ensure(ctx, s.Branch, want); err != nil {
		return Commit{}, err
	}
	raw, err := s.Mirror.commit(hash)
	if err != nil {
		return Commit{}, err
	}
	c := describe(raw)
	if hash == lastGood {
		return c, nil
	}
	c.Signer, err = s.admit(ctx, raw, lastGood)
	return c, err
}

// admit checks descent and signatures, and returns who signed the commit itself.
func (s *Source) admit(ctx context.Context, c objects.Commit, lastGood string) (signer string, err error) {
	fresh, descends, err := s.news(ctx, c.Hash, lastGood)
	if err != nil {
		return "", err
	}
	if !descends && s.Rewrite != FollowRewrite {
		return "", &RewrittenError{Branch: s.Branch, Old: lastGood, New: c.Hash.String()}
	}
	if s.Signatures == nil {
		return "", nil
	}
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	if s.Signatures.Every {
		for _, h := range fresh {
			raw, err := s.Mirror.store.Commit(h)
			if err != nil {
				return "", err
			}
			if _, err := s.verify(raw, now()); err != nil {
				return "", err
			}
		}
	}
	return s.verify(c, now())
}

func (s *Source) verify(c objects.Commit, now time.Time) (signer string, err error) {
	if signer, err = s.Signatures.Verify(c, now); err != nil {
		return "", &SignatureError{Commit: c.Hash.String(), Reason: err.Error()}
	}
	return printable(signer), nil
}

// news returns the commits that came since lastGood, and whether the commit descends from it. Without
// a last good commit there is nothing to descend from, and the commit stands for its history.
func (s *Source) news(ctx context.Context, tip plumbing.Hash, lastGood string) ([]plumbing.Hash, bool, error) {
	if lastGood == "" {
		return nil, true, nil
	}
	base, ok := objects.ParseHash(lastGood)
	if !ok {
		return nil, false, errors.New("last good commit: is no hash")
	}
	bases := []plumbing.Hash{base}
	if !s.Mirror.store.Has(base) { // gone with the history that held it
		bases = nil
	}
	fresh, reached, err := objects.Since(ctx, s.Mirror.store, tip, bases...)
	return fresh, reached[base], err
}
