package render

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
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
func (s *served) read(name string) (answer, []byte) {
	if !fs.ValidPath(name) {
		return s.fail(name, &fs.PathError{Op: "read", Path: name, Err: fs.ErrInvalid})
	}
	if _, again := s.reads[name]; !again && len(s.reads) >= s.limits.Files {
		return answer{Limit: &LimitError{Limit: "Files", Max: int64(s.limits.Files), What: fmt.Sprintf("more than %d files are read", s.limits.Files)}}, nil
	}
	info, err := s.tree.Stat(name)
	switch {
	case isAbsent(err):
		s.reads[name] = ""
		return answer{Kind: absent}, nil
	case err != nil:
		return s.fail(name, err)
	case info.IsDir():
		real, err := s.tree.Resolve(name)
		if err != nil {
			return s.fail(name, err)
		}
		s.reads[name] = directoryAt(real)
		return answer{Kind: directory, Real: real}, nil
	}
	if info.Size() > s.limits.FileBytes {
		return answer{Limit: &LimitError{File: name, Limit: "FileBytes", Max: s.limits.FileBytes, What: "is larger than " + bytesText(s.limits.FileBytes)}}, nil
	}
	if s.bytes += info.Size(); s.bytes > s.limits.TreeBytes {
		return answer{Limit: &LimitError{File: name, Limit: "TreeBytes", Max: s.limits.TreeBytes, What: "with it all files that are read are larger than " + bytesText(s.limits.TreeBytes)}}, nil
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
	return answer{Kind: regular}, content
}

var errLFS = errors.New("is an LFS pointer; LFS is not fetched, so store the file in Git itself (git lfs migrate export)")

func (s *served) fail(name string, err error) (answer, []byte) {
	s.reads[name] = ""
	s.failures[name] = err
	return answer{Failed: true}, nil
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

// bytesText writes a limit as people do.
func bytesText(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
