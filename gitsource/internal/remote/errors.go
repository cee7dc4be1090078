package remote

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/nexus-platform/reconciler/gitsource/internal/limit"
)

// AuthError says that the server does not let these credentials in. A server that hides what one may
// not see answers 404, so that status is one too: it never means that a branch was deleted.
type AuthError struct {
	URL    string
	Status int // of HTTP; 0 for ssh
}

func (e *AuthError) Error() string {
	switch e.Status {
	case 401:
		return fmt.Sprintf("ask %s: 401: the credentials are missing, wrong or expired", e.URL)
	case 403:
		return fmt.Sprintf("ask %s: 403: the credentials may not read the repository", e.URL)
	case 404:
		return fmt.Sprintf("ask %s: 404: no such repository, or the credentials may not see it", e.URL)
	}
	return fmt.Sprintf("ask %s: access refused: no such repository, or the key, password or user is wrong", e.URL)
}

// UnreachableError says that the server could not be asked, or did not answer as Git does. It may
// answer later.
type UnreachableError struct {
	URL        string
	RetryAfter time.Duration // what the server asked for; 0 if nothing
	Err        error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("ask %s: %v", e.URL, e.Err) }
func (e *UnreachableError) Unwrap() error { return e.Err }

// Temporary is true: trying again may help.
func (e *UnreachableError) Temporary() bool { return true }

// HostKeyError says that the ssh server's key is not the one in known_hosts.
type HostKeyError struct {
	Host, Fingerprint string // the fingerprint that the server showed; empty if the host is unknown
}

func (e *HostKeyError) Error() string {
	if e.Fingerprint == "" {
		return fmt.Sprintf("ask %s: the host is not in known_hosts; add its key, taken from its owner", e.Host)
	}
	return fmt.Sprintf("ask %s: the host key has changed to %s, which is not in known_hosts; if its owner confirms the change, replace the key there", e.Host, e.Fingerprint)
}

// RedirectError says that the server pointed elsewhere, and was not followed. To has scheme and host alone.
type RedirectError struct{ URL, To string }

func (e *RedirectError) Error() string {
	return fmt.Sprintf("ask %s: redirected to %s, which is not followed; if the repository has moved, change its URL", e.URL, e.To)
}

// BranchMissingError says that the repository answered and has no such branch.
type BranchMissingError struct{ URL, Branch string }

func (e *BranchMissingError) Error() string {
	return fmt.Sprintf("ask %s: has no branch %q", e.URL, e.Branch)
}

// Explain turns what went wrong while a repository was asked into one of the errors of this package,
// or into the end of ctx. What a server says is not repeated: it may echo credentials.
func Explain(ctx context.Context, url string, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		if isTyped(cause) {
			return cause
		}
		return fmt.Errorf("ask %s: %w", url, cause)
	}
	var over *limit.Error
	if errors.As(err, &over) {
		return &limit.Error{Path: over.Path + " of " + url, Limit: over.Limit, Max: over.Max}
	}
	if isTyped(err) {
		return err
	}
	return &UnreachableError{URL: url, Err: stripURL(err)}
}

func isTyped(err error) bool {
	var (
		auth        *AuthError
		unreachable *UnreachableError
		hostKey     *HostKeyError
		redirect    *RedirectError
		branch      *BranchMissingError
	)
	return errors.As(err, &auth) || errors.As(err, &unreachable) || errors.As(err, &hostKey) ||
		errors.As(err, &redirect) || errors.As(err, &branch)
}

// stripURL takes the request's URL out of an error: the message names the repository already.
func stripURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
