// Package objects keeps the objects of a Git repository on disk: it takes in packs that nobody vouches for, proves that histories are whole, and walks them.
package objects

import "fmt"

// TreeError says that a directory of the commit holds what Git itself would never write, or what misleads.
type TreeError struct{ Path, Reason string }

func (e *TreeError) Error() string { return e.Path + ": " + e.Reason }

// CommitError says that a commit is malformed.
type CommitError struct{ Hash, Reason string }

func (e *CommitError) Error() string { return fmt.Sprintf("commit %s: %s", e.Hash, e.Reason) }

// CorruptError says that the mirror on disk has lost or changed an object. The next Fetch heals it.
type CorruptError struct {
	Hash string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("mirror is corrupt at object %s (%v); it is fetched anew", e.Hash, e.Err)
}
func (e *CorruptError) Unwrap() error { return e.Err }

// DiskError says that the mirror could not be read or written: the disk is full or failing.
type DiskError struct {
	Op  string
	Err error
}

func (e *DiskError) Error() string { return fmt.Sprintf("%s the mirror: %v", e.Op, e.Err) }
func (e *DiskError) Unwrap() error { return e.Err }

// CollisionError says that an object was crafted so that another one has the same hash (SHA-1 is weak).
type CollisionError struct{ Hash string }

func (e *CollisionError) Error() string {
	return fmt.Sprintf("object %s: was forged to share its hash with another; somebody attacks this repository", e.Hash)
}
