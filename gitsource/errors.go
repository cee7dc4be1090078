package gitsource

import (
	"fmt"

	"github.com/nexus-platform/reconciler/gitsource/internal/limit"
	"github.com/nexus-platform/reconciler/gitsource/internal/objects"
	"github.com/nexus-platform/reconciler/gitsource/internal/remote"
)

type (
	// AuthError says that the server does not let these credentials in.
	AuthError = remote.AuthError
	// UnreachableError says that the server could not be asked, or did not answer as Git does.
	UnreachableError = remote.UnreachableError
	// HostKeyError says that the ssh server's key is not the one in known_hosts.
	HostKeyError = remote.HostKeyError
	// RedirectError says that the server pointed elsewhere, and was not followed.
	RedirectError = remote.RedirectError
	// BranchMissingError says that the repository answered and has no such branch.
	BranchMissingError = remote.BranchMissingError
	// LimitError says what was larger than a limit allows.
	LimitError = limit.Error
	// TreeError says that a directory of the commit holds what Git itself would never write.
	TreeError = objects.TreeError
	// CommitError says that a commit is malformed.
	CommitError = objects.CommitError
	// CollisionError says that an object was forged to share its hash with another.
	CollisionError = objects.CollisionError
	// CorruptError says that the mirror on disk has lost or changed an object.
	CorruptError = objects.CorruptError
	// DiskError says that the mirror could not be read or written: the disk is full or failing.
	DiskError = objects.DiskError
)

// LinkError says that a symbolic link cannot be followed inside the tree.
type LinkError struct {
	Path, Target string
	Reason       string
}

func (e *LinkError) Error() string {
	return fmt.Sprintf("%s: symlink to %.200q %s", e.Path, e.Target, e.Reason)
}

// SubmoduleError says that a path is, or lies in, a submodule. Submodules are never fetched.
type SubmoduleError struct{ Path string }

func (e *SubmoduleError) Error() string {
	return e.Path + ": is a submodule; submodules are not fetched, so put the files into this repository"
}

// LFSError says that a file is a Git LFS pointer instead of its content.
type LFSError struct{ Path string }

func (e *LFSError) Error() string {
	return e.Path + ": is an LFS pointer; LFS is not fetched, so store the file in Git itself (git lfs migrate export)"
}

// UnknownCommitError says that the mirror does not have a commit: it was not fetched, or has gone with
// the history of a rewritten branch.
type UnknownCommitError struct{ Hash string }

func (e *UnknownCommitError) Error() string {
	return fmt.Sprintf("commit %s: is not in the mirror", e.Hash)
}

// SignatureError says that a commit is not signed as the environment demands.
type SignatureError struct{ Commit, Reason string }

func (e *SignatureError) Error() string {
	return fmt.Sprintf("commit %s: signature: %s", e.Commit, e.Reason)
}

// RewrittenError says that a branch no longer holds the commit Old: it was forced elsewhere, or deleted
// and made anew.
type RewrittenError struct{ Branch, Old, New string }

func (e *RewrittenError) Error() string {
	return fmt.Sprintf("branch %s: history rewritten: %s does not descend from %s; push the branch back, or set rewrite to follow", e.Branch, e.New, e.Old)
}

// PackError says that the server sent a pack that is damaged, incomplete or crafted.
type PackError struct {
	URL string
	Err error
}

func (e *PackError) Error() string {
	return fmt.Sprintf("fetch from %s: pack refused: %v", e.URL, e.Err)
}
func (e *PackError) Unwrap() error { return e.Err }
