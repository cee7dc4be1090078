package gitsource

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// Commit is what people need to know of a commit. Its text is foreign: control characters are
// replaced, the subject is cut at 200 characters, and nothing else is made of it.
type Commit struct {
	Hash, Author, AuthorEmail, Subject string
	When                               time.Time // of the commit, not of the authorship
	Parents                            []string
	Signer                             string // who signed it; empty if signatures were not checked
}

const maxSubject = 200

// rawCommit is a commit object taken apart from its bytes. Fields are found by what Git writes, in
// the order in which Git writes it, and only once: a reader that takes the first of two trees and a
// signature check that sees the second would disagree about what was signed.
type rawCommit struct {
	hash      plumbing.Hash
	tree      plumbing.Hash
	parents   []plumbing.Hash
	when      time.Time // of the committer
	author    string
	message   string
	signature []byte // of gpgsig, without the indentation
	payload   []byte // the object without gpgsig: what was signed
	foreign   bool   // it has a signature for another hash function
}

var (
	personLine = regexp.MustCompile(`^([^<>]*)<([^<>]*)> (-?[0-9]{1,12}) [+-][0-9]{1,6}$`)
	headerName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9-]*$`)
)

// parseCommit reads a commit object.
func parseCommit(hash plumbing.Hash, raw []byte) (rawCommit, error) {
	c := rawCommit{hash: hash}
	bad := func(why string) (rawCommit, error) {
		return rawCommit{}, &CommitError{Hash: hash.String(), Reason: why}
	}
	head, message, ok := bytes.Cut(raw, []byte("\n\n"))
	if !ok {
		head, message = bytes.TrimSuffix(raw, []byte("\n")), nil
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return bad("has a NUL in its header")
	}
	c.message = string(message)
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
	c.payload = withoutSignature(raw, headers)
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
func (c *rawCommit) take(stage int, h header) (next int, ok bool) {
	switch {
	case stage == wantTree && h.name == "tree":
		c.tree, ok = parseHash(h.value)
		return wantParentOrAuthor, ok
	case stage == wantParentOrAuthor && h.name == "parent":
		var p plumbing.Hash
		p, ok = parseHash(h.value)
		c.parents = append(c.parents, p)
		return stage, ok
	case stage == wantParentOrAuthor && h.name == "author":
		c.author = h.value
		return wantCommitter, true
	case stage == wantCommitter && h.name == "committer":
		c.when = personTime(h.value)
		return wantNothing, true
	case stage != wantNothing:
		return stage, false
	}
	switch h.name {
	case "tree", "parent", "author", "committer":
		return stage, false
	case "gpgsig":
		c.signature = []byte(strings.ReplaceAll(h.value, "\n ", "\n") + "\n")
	case "gpgsig-sha256":
		c.foreign = true
	}
	return stage, true
}

// header is one field of a commit; raw spans its lines, from is where they begin.
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

func parseHash(s string) (plumbing.Hash, bool) {
	h := plumbing.NewHash(s)
	return h, h.String() == s
}

func personTime(line string) time.Time {
	m := personLine.FindStringSubmatch(line)
	if m == nil {
		return time.Time{}
	}
	sec, err := strconv.ParseInt(m[3], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(sec, 0).UTC()
}

// describe is the commit for people.
func (c rawCommit) describe() Commit {
	out := Commit{Hash: c.hash.String(), When: c.when}
	if m := personLine.FindStringSubmatch(c.author); m != nil {
		out.Author, out.AuthorEmail = printable(m[1]), printable(m[2])
	}
	subject, _, _ := strings.Cut(strings.TrimLeft(c.message, "\n"), "\n")
	out.Subject = printable(subject)
	for _, p := range c.parents {
		out.Parents = append(out.Parents, p.String())
	}
	return out
}

// printable is text that cannot steer a terminal or reverse a line, not longer than a subject.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r < ' ' || (r >= 0x7f && r < 0xa0), r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x2028, r == 0x2029:
			return '\ufffd'
		}
		return r
	}, strings.TrimSpace(strings.ToValidUTF8(s, "\ufffd")))
	if runes := []rune(s); len(runes) > maxSubject {
		return string(runes[:maxSubject-1]) + "…"
	}
	return s
}
