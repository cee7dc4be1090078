package gitsource

import "fmt"

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

// TreeError says that a directory of the commit holds what Git itself would never write, or what misleads.
type TreeError struct{ Path, Reason string }

func (e *TreeError) Error() string { return e.Path + ": " + e.Reason }

// LimitError says what was larger than a limit allows. Path is a file, or what else was measured.
type LimitError struct {
	Path  string
	Limit string // the name of the field of Limits
	Max   int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s: is over the limit %s of %d", e.Path, e.Limit, e.Max)
}

// CorruptError says that the mirror on disk has lost or changed an object. The next Fetch heals it.
type CorruptError struct {
	Hash string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("mirror is corrupt at object %s (%v); it is fetched again", e.Hash, e.Err)
}
func (e *CorruptError) Unwrap() error { return e.Err }
