package pgproxy

import (
	"strings"
	"time"
)

// Statement is a simple query, which may hold several, or an Execute of the extended protocol, in the order in which they arrived.
type Statement struct {
	N        int       // its number since Arm or the last fault; 0: it came behind a fault on its connection
	At       time.Time // of its arrival
	Database string
	By       string // the application_name of whom it came from
	Text     string // of one that is longer than 64 KB the beginning
	Tag      string // with which the server said that it was done, the last where there are several; empty: it never said so
	Code     string // SQLSTATE with which the server refused it
	Fault    Mode   // what was done to it
	Late     bool   // it was held back and delivered after its client had given up
}

// Verb is the first word of a statement in capitals: BEGIN, COMMIT and ROLLBACK for whatever begins and ends a transaction.
// The server's answer has the last word: a COMMIT of what failed is a ROLLBACK.
func (s Statement) Verb() string {
	said := s.Tag
	if said == "" {
		said = bare(s.Text)
	}
	words := strings.FieldsFunc(strings.ToUpper(said), func(r rune) bool { return r != '_' && (r < 'A' || r > 'Z') })
	if len(words) == 0 {
		return ""
	}
	switch {
	case words[0] == "START" && len(words) > 1 && words[1] == "TRANSACTION":
		return "BEGIN"
	case words[0] == "END":
		return "COMMIT"
	case words[0] == "ABORT":
		return "ROLLBACK"
	}
	return words[0]
}

// bare is a text without what may stand before its first statement.
func bare(text string) string {
	for {
		text = strings.TrimLeft(text, " \t\r\n\f;")
		switch {
		case strings.HasPrefix(text, "--"):
			_, text, _ = strings.Cut(text, "\n")
		case strings.HasPrefix(text, "/*"):
			text = afterComment(text)
		default:
			return text
		}
	}
}

// afterComment is what follows a comment, which may hold others.
func afterComment(text string) string {
	for depth, i := 0, 0; i+1 < len(text); i++ {
		switch text[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
		}
		if depth == 0 {
			return text[i+1:]
		}
	}
	return ""
}

// names are what a session calls its statements.
type names struct {
	prepared map[string]string // texts by Parse's names
	portals  map[string]string // texts by Bind's names
}

// learn reads a message that gives or takes a name.
func (n names) learn(m message) {
	switch body := m.body(); m.kind {
	case 'P': // Parse
		name, rest := text(body)
		n.prepared[name], _ = text(rest)
	case 'B': // Bind
		portal, rest := text(body)
		name, _ := text(rest)
		n.portals[portal] = n.prepared[name]
	case 'C': // Close
		if len(body) == 0 {
			return
		}
		name, _ := text(body[1:])
		switch body[0] {
		case 'S':
			delete(n.prepared, name)
		case 'P':
			delete(n.portals, name)
		}
	}
}

// text is that of a statement.
func (n names) text(m message) string {
	name, _ := text(m.body())
	switch m.kind {
	case 'Q': // Query
		return name
	case 'E': // Execute
		return n.portals[name]
	}
	return "" // FunctionCall
}
