package gitsource

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
)

// The file modes that Git writes.
const (
	modeDir       = 0o040000
	modeFile      = 0o100644
	modeGroupFile = 0o100664 // written by very old versions of Git
	modeExec      = 0o100755
	modeLink      = 0o120000
	modeSubmodule = 0o160000
)

const maxName = 255 // bytes; what file systems take

// entry is one line of a tree object.
type entry struct {
	name string
	mode uint32
	hash plumbing.Hash
}

// splitTree reads a tree object byte by byte instead of trusting a decoder that was made to be lenient.
func splitTree(raw []byte) ([]entry, error) {
	var entries []entry
	for len(raw) > 0 {
		head, rest, ok := bytes.Cut(raw, []byte{0})
		mode, name, ok2 := strings.Cut(string(head), " ")
		if !ok || !ok2 || len(rest) < len(plumbing.Hash{}) {
			return nil, errors.New("is a malformed tree object")
		}
		n, err := strconv.ParseUint(mode, 8, 32)
		if err != nil {
			return nil, fmt.Errorf("holds the malformed mode %.20q", mode)
		}
		e := entry{name: name, mode: uint32(n)}
		copy(e.hash[:], rest)
		raw = rest[len(e.hash):]
		entries = append(entries, e)
	}
	return entries, nil
}

// parseTree is splitTree for a directory that is read: what Git itself would never write is refused.
// path names the directory in errors.
func parseTree(path string, raw []byte) ([]entry, error) {
	entries, err := splitTree(raw)
	if err != nil {
		return nil, &TreeError{Path: path, Reason: err.Error()}
	}
	seen := make(map[string]bool, len(entries))
	for _, e := range entries {
		if err := checkName(e.name); err != nil {
			return nil, &TreeError{Path: path, Reason: fmt.Sprintf("holds the name %.80q, which %s", e.name, err)}
		}
		if seen[e.name] {
			return nil, &TreeError{Path: path, Reason: fmt.Sprintf("holds the name %q twice", e.name)}
		}
		seen[e.name] = true
		switch e.mode {
		case modeDir, modeFile, modeGroupFile, modeExec, modeLink, modeSubmodule:
		default:
			return nil, &TreeError{Path: join(path, e.name), Reason: fmt.Sprintf("has mode %06o, which is neither file, directory, link nor submodule", e.mode)}
		}
	}
	return entries, nil
}

// checkName refuses what is no file name, or is one only to mislead some file system or terminal.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case name == "." || name == "..":
		return errors.New("would leave its directory")
	case len(name) > maxName:
		return fmt.Errorf("is longer than %d bytes", maxName)
	case strings.ContainsRune(name, '/'):
		return errors.New("has a slash")
	case !utf8.ValidString(name):
		return errors.New("is not UTF-8")
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("has a control character")
	}
	for part := range strings.SplitSeq(name, `\`) {
		if isDotGit(part) {
			return errors.New("means .git on some file system")
		}
		if part == ".." {
			return errors.New("would leave its directory on some file system")
		}
	}
	return nil
}

// isDotGit knows the names under which HFS+ and NTFS open .git too, as Git's is_hfs_dotgit
// and is_ntfs_dotgit do.
func isDotGit(name string) bool {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	name, _, _ = strings.Cut(name, ":")
	name = strings.ToLower(strings.TrimRight(name, " ."))
	return name == ".git" || name == "git~1"
}

// join appends a name to a path in the tree, whose root is ".".
func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}
