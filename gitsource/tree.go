package gitsource

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/nexus-platform/reconciler/gitsource/internal/objects"
)

const (
	lfsPrefix     = "version https://git-lfs.github.com/spec/"
	maxLFSPointer = 1024 // bytes
)

// Tree is the files of one commit, read from the object store when they are asked
// for: a read-only fs.FS whose links end inside of it. Names are as fs.ValidPath wants
// them; a link is followed wherever it stands in a path. It may be used concurrently.
//
// Beside *fs.PathError its methods return *LinkError, *SubmoduleError, *LFSError,
// *TreeError, *LimitError and *CorruptError.
type Tree struct {
	commit string
	from   reader
	root   node
	when   time.Time
	limits Limits

	mu      sync.Mutex
	dirs    map[string][]objects.Entry // by real path, so that one tree under many names is counted under each
	entries int
	charged map[string]bool
	bytes   int64
}

// reader is what a Tree needs of the mirror. Its errors are ready for the caller.
type reader interface {
	Size(plumbing.Hash) (int64, error)
	Read(plumbing.Hash, plumbing.ObjectType) ([]byte, error)
}

// node is a place in the tree: path is real, that is free of links.
type node struct {
	objects.Entry
	path string
}

func newTree(commit string, root plumbing.Hash, when time.Time, from reader, limits Limits) *Tree {
	return &Tree{
		commit: commit, from: from, when: when, limits: limits.OrDefault(),
		root: node{Entry: objects.Entry{Name: ".", Mode: objects.ModeDir, Hash: root}, path: "."},
		dirs: make(map[string][]objects.Entry), charged: make(map[string]bool),
	}
}

// Commit is the hash of the commit that the tree belongs to.
func (t *Tree) Commit() string { return t.commit }

// Open opens a file or directory.
func (t *Tree) Open(name string) (fs.File, error) {
	n, err := t.find("open", name, true)
	if err != nil {
		return nil, err
	}
	if n.Mode == objects.ModeDir {
		list, err := t.list(n)
		if err != nil {
			return nil, err
		}
		return &openDir{info: t.infoOf(n, 0, path.Base(name)), entries: list}, nil
	}
	content, err := t.content(n)
	if err != nil {
		return nil, err
	}
	return &openFile{info: t.infoOf(n, int64(len(content)), path.Base(name)), Reader: bytes.NewReader(content)}, nil
}

// ReadFile returns the content of a file; the caller owns it.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	n, err := t.find("read", name, true)
	if err != nil {
		return nil, err
	}
	if n.Mode == objects.ModeDir {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errIsDirectory}
	}
	return t.content(n)
}

// ReadDir lists a directory in order of name.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := t.find("readdir", name, true)
	if err != nil {
		return nil, err
	}
	if n.Mode != objects.ModeDir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errNotDirectory}
	}
	return t.list(n)
}

// Stat describes what a name leads to; Lstat does not follow a link at its end.
func (t *Tree) Stat(name string) (fs.FileInfo, error) { return t.stat(name, true) }

// Lstat describes a name itself.
func (t *Tree) Lstat(name string) (fs.FileInfo, error) { return t.stat(name, false) }

// ReadLink returns the target of a link as it is written.
func (t *Tree) ReadLink(name string) (string, error) {
	n, err := t.find("readlink", name, false)
	if err != nil {
		return "", err
	}
	if n.Mode != objects.ModeLink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return t.target(n)
}

// Resolve returns the path of what a name leads to, free of links.
func (t *Tree) Resolve(name string) (string, error) {
	n, err := t.find("resolve", name, true)
	return n.path, err
}

// Hash returns Git's hash of the file or directory that a name leads to. Equal hashes of files mean
// equal content; equal hashes of directories mean equal content but for links that lead out of them.
func (t *Tree) Hash(name string) (string, bool) {
	n, err := t.find("hash", name, true)
	if err != nil {
		return "", false
	}
	return n.Hash.String(), true
}

func (t *Tree) stat(name string, follow bool) (fs.FileInfo, error) {
	n, err := t.find("stat", name, follow)
	if err != nil {
		return nil, err
	}
	return t.describe(n, path.Base(name))
}

func (t *Tree) describe(n node, name string) (fs.FileInfo, error) {
	var size int64
	if n.Mode != objects.ModeDir && n.Mode != objects.ModeSubmodule {
		var err error
		if size, err = t.from.Size(n.Hash); err != nil {
			return nil, fmt.Errorf("%s: %w", n.path, err)
		}
	}
	return t.infoOf(n, size, name), nil
}

// entriesOf reads a directory, sorted by name.
func (t *Tree) entriesOf(dir node) ([]objects.Entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if entries, ok := t.dirs[dir.path]; ok {
		return entries, nil
	}
	// The smallest objects.Entry has 24 bytes: a directory that is too large is not even read.
	size, err := t.from.Size(dir.Hash)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir.path, err)
	}
	// A directory that has too many entries however long their names are is not even read.
	tooMany := &LimitError{Path: dir.path, Limit: "Files", Max: int64(t.limits.Files)}
	if size/(objects.MaxName+32) > int64(t.limits.Files) {
		return nil, tooMany
	}
	raw, err := t.from.Read(dir.Hash, plumbing.TreeObject)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir.path, err)
	}
	entries, err := objects.ParseTree(dir.path, raw)
	if err != nil {
		return nil, err
	}
	if t.entries += len(entries); t.entries > t.limits.Files {
		t.entries -= len(entries)
		return nil, tooMany
	}
	slices.SortFunc(entries, func(a, b objects.Entry) int { return strings.Compare(a.Name, b.Name) })
	t.dirs[dir.path] = entries
	return entries, nil
}

// content reads a file within the limits.
func (t *Tree) content(n node) ([]byte, error) {
	size, err := t.from.Size(n.Hash)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.path, err)
	}
	if size > t.limits.FileBytes {
		return nil, &LimitError{Path: n.path, Limit: "FileBytes", Max: t.limits.FileBytes}
	}
	if err := t.charge(n.path, size); err != nil {
		return nil, err
	}
	raw, err := t.from.Read(n.Hash, plumbing.BlobObject)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.path, err)
	}
	if len(raw) <= maxLFSPointer && bytes.HasPrefix(raw, []byte(lfsPrefix)) {
		return nil, &LFSError{Path: n.path}
	}
	return raw, nil
}

// charge counts the bytes of a file, once per path.
func (t *Tree) charge(name string, size int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.charged[name] {
		return nil
	}
	if t.bytes+size > t.limits.TreeBytes {
		return &LimitError{Path: name, Limit: "TreeBytes", Max: t.limits.TreeBytes}
	}
	t.bytes += size
	t.charged[name] = true
	return nil
}
