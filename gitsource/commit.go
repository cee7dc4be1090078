package gitsource

import (
	"strings"
	"time"

	"github.com/nexus-platform/reconciler/gitsource/internal/objects"
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

// describe is the commit for people.
func describe(c objects.Commit) Commit {
	out := Commit{Hash: c.Hash.String(), When: c.When}
	if m := objects.PersonLine.FindStringSubmatch(c.Author); m != nil {
		out.Author, out.AuthorEmail = printable(m[1]), printable(m[2])
	}
	subject, _, _ := strings.Cut(strings.TrimLeft(c.Message, "\n"), "\n")
	out.Subject = printable(subject)
	for _, p := range c.Parents {
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
