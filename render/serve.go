package render

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/nexus-platform/reconciler/render/internal/wire"
)

// served is one render's view of a Tree: what the child is shown, and the memory of what it looked at.
type served struct {
	tree   Tree
	limits Limits
	keep   string // the path whose content is remembered in kept

	kept     []byte
	reads    map[string]string // every path that was looked at, see stateOf
	failures map[string]error  // what the Tree said to paths that cannot be read
	bytes    int64
}

// read answers one question of the child.
func (s *served) read(name string) (wire.Answer, []byte) {
	if !fs.ValidPath(name) {
		return s.fail(name, &fs.PathError{Op: "read", Path: name, Err: fs.ErrInvalid})
	}
	if _, again := s.reads[name]; !again && len(s.reads) >= s.limits.Files {
		return wire.Answer{Limit: &LimitError{Limit: "Files", Max: int64(s.limits.Files), What: fmt.Sprintf("more than %d files are read", s.limits.Files)}}, nil
	}
	info, err := s.tree.Stat(name)
	switch {
	case isAbsent(err):
		s.reads[name] = ""
		return wire.Answer{Kind: wire.Absent}, nil
	case err != nil:
		return s.fail(name, err)
	case info.IsDir():
		real, err := s.tree.Resolve(name)
		if err != nil {
			return s.fail(name, err)
		}
		s.reads[name] = directoryAt(real)
		return wire.Answer{Kind: wire.Directory, Real: real}, nil
	}
	if info.Size() > s.limits.FileBytes {
		return wire.Answer{Limit: &LimitError{File: name, Limit: "FileBytes", Max: s.limits.FileBytes, What: "is larger than " + wire.BytesText(s.limits.FileBytes)}}, nil
	}
	if s.bytes += info.Size(); s.bytes > s.limits.TreeBytes {
		return wire.Answer{Limit: &LimitError{File: name, Limit: "TreeBytes", Max: s.limits.TreeBytes, What: "with it all files that are read are larger than " + wire.BytesText(s.limits.TreeBytes)}}, nil
	}
	content, err := s.tree.ReadFile(name)
	if err != nil {
		return s.fail(name, err)
	}
	if len(content) < 1024 && bytes.HasPrefix(content, []byte("version https://git-lfs.github.com/spec/")) {
		return s.fail(name, errLFS)
	}
	hash, _ := s.tree.Hash(name)
	s.reads[name] = hash
	if name == s.keep {
		s.kept = content
	}
	return wire.Answer{Kind: wire.Regular}, content
}

var errLFS = errors.New("is an LFS pointer; LFS is not fetched, so store the file in Git itself (git lfs migrate export)")

func (s *served) fail(name string, err error) (wire.Answer, []byte) {
	s.reads[name] = ""
	s.failures[name] = err
	return wire.Answer{Failed: true}, nil
}

// isAbsent reports that nothing is at a path, or that it leads through a file.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// directoryAt is what reads hold for a directory: that it is one, and where links lead to it. What is in it
// does not matter: kustomize never lists one.
func directoryAt(real string) string { return "directory " + real }

// stateOf is what read would remember of a path: Git's hash of a file, a directory's place, "" if nothing is there.
func stateOf(tree Tree, name string) string {
	info, err := tree.Stat(name)
	if err != nil {
		return ""
	}
	if !info.IsDir() {
		hash, _ := tree.Hash(name)
		return hash
	}
	real, err := tree.Resolve(name)
	if err != nil {
		return ""
	}
	return directoryAt(real)
}
