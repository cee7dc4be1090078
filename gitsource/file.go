package gitsource

import (
	"bytes"
	"io"
	"io/fs"
	"syscall"
	"time"

	"github.com/nexus-platform/reconciler/gitsource/internal/objects"
)

// As on disk, so that callers who know os see what they know.
var (
	errIsDirectory  error = syscall.EISDIR
	errNotDirectory error = syscall.ENOTDIR
)

// info describes a file of a Tree.
type info struct {
	name string
	size int64
	mode fs.FileMode
	when time.Time
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return i.when }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return nil }

func (t *Tree) infoOf(n node, size int64, name string) info {
	return info{name: name, size: size, mode: fileMode(n.Mode), when: t.when}
}

func fileMode(mode uint32) fs.FileMode {
	switch mode {
	case objects.ModeDir:
		return fs.ModeDir | 0o555
	case objects.ModeLink:
		return fs.ModeSymlink | 0o444
	case objects.ModeSubmodule:
		return fs.ModeIrregular
	case objects.ModeExec:
		return 0o555
	}
	return 0o444
}

// dirEntry is one line of a listing; its size is only read when asked for.
type dirEntry struct {
	tree *Tree
	node node
}

func (d dirEntry) Name() string               { return d.node.Name }
func (d dirEntry) IsDir() bool                { return d.node.Mode == objects.ModeDir }
func (d dirEntry) Type() fs.FileMode          { return fileMode(d.node.Mode).Type() }
func (d dirEntry) Info() (fs.FileInfo, error) { return d.tree.describe(d.node, d.node.Name) }
func (d dirEntry) String() string             { return fs.FormatDirEntry(d) }

func (t *Tree) list(dir node) ([]fs.DirEntry, error) {
	entries, err := t.entriesOf(dir)
	if err != nil {
		return nil, err
	}
	out := make([]fs.DirEntry, len(entries))
	for i, e := range entries {
		out[i] = dirEntry{tree: t, node: node{Entry: e, path: objects.Join(dir.path, e.Name)}}
	}
	return out, nil
}

type openFile struct {
	info info
	*bytes.Reader
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

type openDir struct {
	info    info
	entries []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }
func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.name, Err: errIsDirectory}
}

// ReadDir is as fs.ReadDirFile says.
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 || n > len(d.entries) {
		if n > 0 && len(d.entries) == 0 {
			return nil, io.EOF
		}
		n = len(d.entries)
	}
	out := d.entries[:n:n]
	d.entries = d.entries[n:]
	return out, nil
}
