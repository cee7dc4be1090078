package render

import (
	"crypto/sha1" // Git's own hash of a file; nothing is secured by it
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// Tree is a commit's files, read-only. Paths are slash-separated and relative to the root of the repository,
// as fs.ValidPath wants them. Links are followed inside the tree and refused where they leave it.
type Tree interface {
	ReadFile(name string) ([]byte, error)
	Stat(name string) (fs.FileInfo, error)
	// Hash changes when the content of the file or directory does; false if there is none.
	Hash(name string) (string, bool)
	// Resolve is the path of what a name leads to, free of links.
	Resolve(name string) (string, error)
}

// LinkError says that a working copy has a symbolic link that leaves it.
type LinkError struct{ Path string }

func (e *LinkError) Error() string { return e.Path + ": symlink leaves the tree" }

// DirTree is the working copy at dir, the root of a repository, as a Tree. Its .git is not part of it. It is
// held open until the process ends.
func DirTree(dir string) (Tree, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, err
	}
	return &dirTree{root: root, dir: abs}, nil
}

type dirTree struct {
	root *os.Root
	dir  string
}

func (t *dirTree) ReadFile(name string) ([]byte, error) {
	info, err := t.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a pipe or a device would block, or never end
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("is not a regular file")}
	}
	raw, err := t.root.ReadFile(filepath.FromSlash(name))
	return raw, t.explain(name, err)
}

func (t *dirTree) Stat(name string) (fs.FileInfo, error) {
	if err := inRepository("stat", name); err != nil {
		return nil, err
	}
	info, err := t.root.Stat(filepath.FromSlash(name))
	return info, t.explain(name, err)
}

// Hash of a file is Git's; a directory's is that of its path only, as nothing here ever lists one.
func (t *dirTree) Hash(name string) (string, bool) {
	info, err := t.Stat(name)
	if err != nil {
		return "", false
	}
	kind, content := "tree", []byte(name)
	if !info.IsDir() {
		kind = "blob"
		if content, err = t.ReadFile(name); err != nil {
			return "", false
		}
	}
	sum := sha1.New()
	fmt.Fprintf(sum, "%s %d\x00", kind, len(content))
	sum.Write(content)
	return hex.EncodeToString(sum.Sum(nil)), true
}

func (t *dirTree) Resolve(name string) (string, error) {
	if _, err := t.Stat(name); err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(filepath.Join(t.dir, filepath.FromSlash(name)))
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(t.dir, resolved)
	if err != nil || !filepath.IsLocal(rel) {
		return "", &LinkError{Path: name}
	}
	rel = filepath.ToSlash(rel)
	return rel, inRepository("resolve", rel)
}

// inRepository refuses names that are none, and Git's own folder with its credentials.
func inRepository(op, name string) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	for _, part := range strings.Split(name, "/") {
		if strings.EqualFold(part, ".git") {
			return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
	}
	return nil
}

// explain names the link where os.Root only says that a path escapes: names that leave by themselves never get here.
func (t *dirTree) explain(name string, err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	for at := name; at != "."; at = path.Dir(at) {
		if info, lerr := t.root.Lstat(filepath.FromSlash(at)); lerr == nil && info.Mode()&fs.ModeSymlink != 0 {
			return &LinkError{Path: at}
		}
	}
	return err
}
