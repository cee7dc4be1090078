package objects

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
	ModeDir       = 0o040000
	ModeFile      = 0o100644
	ModeGroupFile = 0o100664 // written by very old versions of Git
	ModeExec      = 0o100755
	ModeLink      = 0o120000
	ModeSubmodule = 0o160000
)

// isFile says that a mode has a blob.
func isFile(mode uint32) bool {
	switch mode {
	case ModeFile, ModeGroupFile, ModeExec, ModeLink:
		return true
	}
	return false
}

// MaxName is the longest name that file systems take, in bytes.
const MaxName = 255

// Entry is one line of a tree object.
type Entry struct {
	Name string
	Mode uint32
	Hash plumbing.Hash
}

// splitTree reads a tree object byte by byte instead of trusting a decoder that was made to be lenient.
func splitTree(raw []byte) ([]Entry, error) {
	var entries []Entry
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
		e := Entry{Name: name, Mode: uint32(n)}
		copy(e.Hash[:], rest)
		raw = rest[len(e.Hash):]
		entries = append(entries, e)
	}
	return entries, nil
}

// ParseTree is splitTree for a directory that is read: what Git itself would never write is refused.
// path names the directory in errors.
func ParseTree(path string, raw []byte) ([]Entry, error) {
	entries, err := splitTree(raw)
	if err != nil {
		return nil, &TreeError{Path: path, Reason: err.Error()}
	}
	seen := make(map[string]bool, len(entries))
	for _, e := range entries {
		if err := checkName(e.Name); err != nil {
			return nil, &TreeError{Path: path, Reason: fmt.Sprintf("holds the name %.80q, which %s", e.Name, err)}
		}
		if seen[e.Name] {
			return nil, &TreeError{Path: path, Reason: fmt.Sprintf("holds the name %q twice", e.Name)}
		}
		seen[e.Name] = true
		if !isFile(e.Mode) && e.Mode != ModeDir && e.Mode != ModeSubmodule {
			return nil, &TreeError{Path: Join(path, e.Name), Reason: fmt.Sprintf("has mode %06o, which is neither file, directory, link nor submodule", e.Mode)}
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
	case len(name) > MaxName:
		return fmt.Errorf("is longer than %d bytes", MaxName)
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

// Join appends a name to a path in the tree, whose root is ".".
func Join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}
