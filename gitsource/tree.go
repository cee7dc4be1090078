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
)

const (
	maxLinks      = 40
	maxLinkTarget = 4096
	maxLFSPointer = 1024
)

var lfsPrefix = []byte("version https://git-lfs.github.com/spec/")

// Tree is the files of one commit, read from the object store when they are asked
// for: a read-only fs.FS whose links end inside of it. Names are as fs.ValidPath wants
// them; a link is followed wherever it stands in a path. It may be used concurrently.
//
// Beside *fs.PathError its methods return *LinkError, *SubmoduleError, *LFSError,
// *TreeError, *LimitError and *CorruptError.
type Tree struct {
	commit  string
	objects objects
	root    node
	when    time.Time
	limits  Limits

	mu      sync.Mutex
	dirs    map[string][]entry // by real path, so that one tree under many names is counted under each
	entries int
	charged map[string]bool
	bytes   int64
}

// objects is what a Tree needs of the mirror. Its errors are ready for the caller.
type objects interface {
	size(plumbing.Hash) (int64, error)
	read(plumbing.Hash, plumbing.ObjectType) ([]byte, error)
}

// node is a place in the tree: path is real, that is free of links.
type node struct {
	entry
	path string
}

func newTree(commit string, root plumbing.Hash, when time.Time, from objects, limits Limits) *Tree {
	return &Tree{
		commit: commit, objects: from, when: when, limits: limits.orDefault(),
		root: node{entry: entry{name: ".", mode: modeDir, hash: root}, path: "."},
		dirs: make(map[string][]entry), charged: make(map[string]bool),
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
	if n.mode == modeDir {
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
	if n.mode == modeDir {
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
	if n.mode != modeDir {
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
	if n.mode != modeLink {
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
	return n.hash.String(), true
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
	if n.mode != modeDir && n.mode != modeSubmodule {
		var err error
		if size, err = t.objects.size(n.hash); err != nil {
			return nil, fmt.Errorf("%s: %w", n.path, err)
		}
	}
	return t.infoOf(n, size, name), nil
}

// find walks to a name. Links are followed inside the tree: "..", which can only come from a link,
// climbs from where the link stands, and never above the root.
func (t *Tree) find(op, name string, follow bool) (node, error) {
	if !fs.ValidPath(name) {
		return node{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	stack, rest := []node{t.root}, strings.Split(name, "/")
	var link node
	var target string
	for links := 0; len(rest) > 0; {
		part, dir := rest[0], stack[len(stack)-1]
		rest = rest[1:]
		if dir.mode != modeDir {
			return node{}, &fs.PathError{Op: op, Path: name, Err: errNotDirectory}
		}
		switch part {
		case "", ".":
			continue
		case "..":
			if len(stack) == 1 {
				return node{}, &LinkError{Path: link.path, Target: target, Reason: "leaves the tree"}
			}
			stack = stack[:len(stack)-1]
			continue
		}
		n, err := t.child(op, name, dir, part)
		if err != nil {
			return node{}, err
		}
		if n.mode != modeLink || (!follow && len(rest) == 0) {
			stack = append(stack, n)
			continue
		}
		link = n
		if target, err = t.target(n); err != nil {
			return node{}, err
		}
		if strings.HasPrefix(target, "/") {
			return node{}, &LinkError{Path: n.path, Target: target, Reason: "leaves the tree"}
		}
		if links++; links > maxLinks {
			return node{}, &LinkError{Path: n.path, Target: target, Reason: "is part of a loop"}
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return stack[len(stack)-1], nil
}

// child looks up one name in a directory.
func (t *Tree) child(op, name string, dir node, part string) (node, error) {
	if depth := strings.Count(dir.path, "/") + 2; depth > t.limits.Depth {
		return node{}, &LimitError{Path: dir.path, Limit: "Depth", Max: int64(t.limits.Depth)}
	}
	entries, err := t.entriesOf(dir)
	if err != nil {
		return node{}, err
	}
	i, ok := slices.BinarySearchFunc(entries, part, func(e entry, s string) int { return strings.Compare(e.name, s) })
	if !ok {
		return node{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	n := node{entry: entries[i], path: join(dir.path, part)}
	if n.mode == modeSubmodule {
		return node{}, &SubmoduleError{Path: n.path}
	}
	return n, nil
}

// entriesOf reads a directory, sorted by name.
func (t *Tree) entriesOf(dir node) ([]entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if entries, ok := t.dirs[dir.path]; ok {
		return entries, nil
	}
	// The smallest entry has 24 bytes: a directory that is too large is not even read.
	size, err := t.objects.size(dir.hash)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir.path, err)
	}
	tooMany := &LimitError{Path: dir.path, Limit: "Files", Max: int64(t.limits.Files)}
	if size/(maxName+32) > int64(t.limits.Files) {
		return nil, tooMany
	}
	raw, err := t.objects.read(dir.hash, plumbing.TreeObject)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir.path, err)
	}
	entries, err := parseTree(dir.path, raw)
	if err != nil {
		return nil, err
	}
	if t.entries += len(entries); t.entries > t.limits.Files {
		t.entries -= len(entries)
		return nil, tooMany
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	t.dirs[dir.path] = entries
	return entries, nil
}

// content reads a file within the limits.
func (t *Tree) content(n node) ([]byte, error) {
	size, err := t.objects.size(n.hash)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.path, err)
	}
	if size > t.limits.FileBytes {
		return nil, &LimitError{Path: n.path, Limit: "FileBytes", Max: t.limits.FileBytes}
	}
	if err := t.charge(n.path, size); err != nil {
		return nil, err
	}
	raw, err := t.objects.read(n.hash, plumbing.BlobObject)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.path, err)
	}
	if len(raw) <= maxLFSPointer && bytes.HasPrefix(raw, lfsPrefix) {
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

// target reads where a link leads to.
func (t *Tree) target(n node) (string, error) {
	size, err := t.objects.size(n.hash)
	if err != nil {
		return "", fmt.Errorf("%s: %w", n.path, err)
	}
	if size == 0 || size > maxLinkTarget {
		return "", &LinkError{Path: n.path, Reason: fmt.Sprintf("has a target of %d bytes", size)}
	}
	raw, err := t.objects.read(n.hash, plumbing.BlobObject)
	if err != nil {
		return "", fmt.Errorf("%s: %w", n.path, err)
	}
	return string(raw), nil
}
