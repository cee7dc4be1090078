package objects

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// Commit is a commit object taken apart from its bytes. Fields are found by what Git writes, in
// the order in which Git writes it, and only once: a reader that takes the first of two trees and a
// signature check that sees the second would disagree about what was signed.
type Commit struct {
	Hash      plumbing.Hash
	Tree      plumbing.Hash
	Parents   []plumbing.Hash
	When      time.Time // of the committer
	Author    string
	Message   string
	Signature []byte // of gpgsig, without the indentation
	Payload   []byte // the object without gpgsig: what was signed
	Foreign   bool   // it has a signature for another hash function
}

// PersonLine is how Git writes who and when: name, address, seconds.
var PersonLine = regexp.MustCompile(`^([^<>]*)<([^<>]*)> (-?[0-9]{1,12}) [+-][0-9]{1,6}$`)

// headerName takes what other tools write into histories, such as HG:rename.
var headerName = regexp.MustCompile(`^[!-~]+$`)

// ParseCommit reads a commit object.
func ParseCommit(hash plumbing.Hash, raw []byte) (Commit, error) {
	c := Commit{Hash: hash}
	bad := func(why string) (Commit, error) {
		return Commit{}, &CommitError{Hash: hash.String(), Reason: why}
	}
	head, message, ok := bytes.Cut(raw, []byte("\n\n"))
	if !ok {
		head, message = bytes.TrimSuffix(raw, []byte("\n")), nil
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return bad("has a NUL in its header")
	}
	c.Message = string(message)
	headers, err := splitHeaders(string(head))
	if err != "" {
		return bad(err)
	}
	stage, seen := wantTree, map[string]bool{}
	for _, h := range headers {
		if seen[h.name] && h.name != "parent" && h.name != "mergetag" {
			return bad("has the header " + strconv.Quote(h.name) + " twice")
		}
		seen[h.name] = true
		var ok bool
		if stage, ok = c.take(stage, h); !ok {
			return bad("has a malformed or misplaced header " + strconv.Quote(h.name))
		}
	}
	if stage != wantNothing {
		return bad("lacks tree, author or committer")
	}
	c.Payload = withoutSignature(raw, headers)
	return c, nil
}

// What the header of a commit must bring next.
const (
	wantTree = iota
	wantParentOrAuthor
	wantCommitter
	wantNothing
)

// take reads one field and says what must follow.
func (c *Commit) take(stage int, h header) (next int, ok bool) {
	switch {
	case stage == wantTree && h.name == "tree":
		c.Tree, ok = ParseHash(h.value)
		return wantParentOrAuthor, ok
	case stage == wantParentOrAuthor && h.name == "parent":
		var p plumbing.Hash
		p, ok = ParseHash(h.value)
		c.Parents = append(c.Parents, p)
		return stage, ok
	case stage == wantParentOrAuthor && h.name == "author":
		c.Author = h.value
		return wantCommitter, true
	case stage == wantCommitter && h.name == "committer":
		c.When = personTime(h.value)
		return wantNothing, true
	case stage != wantNothing:
		return stage, false
	}
	switch h.name {
	case "parent": // the others that belong above come only once anyway
		return stage, false
	case "gpgsig":
		c.Signature = []byte(strings.ReplaceAll(h.value, "\n ", "\n") + "\n")
	case "gpgsig-sha256":
		c.Foreign = true
	}
	return stage, true
}

// header is one field of a commit, between two places of the object.
type header struct {
	name, value string
	from, to    int
}

// splitHeaders cuts the head of a commit into fields; the lines that continue one begin with a space.
func splitHeaders(head string) (out []header, wrong string) {
	at := 0
	for line := range strings.SplitSeq(head, "\n") {
		from := at
		at += len(line) + 1
		if strings.HasPrefix(line, " ") && len(out) > 0 {
			last := &out[len(out)-1]
			last.value += "\n" + line
			last.to = at
			continue
		}
		name, value, ok := strings.Cut(line, " ")
		if !ok || !headerName.MatchString(name) {
			return nil, "has a malformed header"
		}
		out = append(out, header{name: name, value: value, from: from, to: at})
	}
	return out, ""
}

// withoutSignature is the object as it was before it was signed.
func withoutSignature(raw []byte, headers []header) []byte {
	for _, h := range headers {
		if h.name == "gpgsig" {
			return append(bytes.Clone(raw[:h.from]), raw[min(h.to, len(raw)):]...)
		}
	}
	return raw
}

// ParseHash reads a hash in its one spelling: 40 hexadecimal digits in lower case.
func ParseHash(s string) (plumbing.Hash, bool) {
	h := plumbing.NewHash(s)
	return h, h.String() == s
}

func personTime(line string) time.Time {
	m := PersonLine.FindStringSubmatch(line)
	if m == nil {
		return time.Time{}
	}
	sec, err := strconv.ParseInt(m[3], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(sec, 0).UTC()
}
