package gitsource

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/nexus-platform/reconciler/gitsource/internal/objects"
)

const (
	maxLinks      = 40   // on one path, as Linux has it
	maxLinkTarget = 4096 // bytes, as Linux has it
)

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
		if dir.Mode != objects.ModeDir {
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
		if n.Mode != objects.ModeLink || (!follow && len(rest) == 0) {
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
	i, ok := slices.BinarySearchFunc(entries, part, func(e objects.Entry, s string) int { return strings.Compare(e.Name, s) })
	if !ok {
		return node{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	n := node{Entry: entries[i], path: objects.Join(dir.path, part)}
	if n.Mode == objects.ModeSubmodule {
		return node{}, &SubmoduleError{Path: n.path}
	}
	return n, nil
}

// target reads where a link leads to.
func (t *Tree) target(n node) (string, error) {
	size, err := t.from.Size(n.Hash)
	if err != nil {
		return "", fmt.Errorf("%s: %w", n.path, err)
	}
	if size == 0 || size > maxLinkTarget {
		return "", &LinkError{Path: n.path, Reason: fmt.Sprintf("has a target of %d bytes", size)}
	}
	raw, err := t.from.Read(n.Hash, plumbing.BlobObject)
	if err != nil {
		return "", fmt.Errorf("%s: %w", n.path, err)
	}
	return string(raw), nil
}
