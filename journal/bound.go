package journal

import (
	"encoding/json"
	"fmt"
	"strings"
)

// clip bounds a text to limit bytes of JSON, so that the head stays small whoever wrote it. It
// ends between characters; what is no UTF-8 is replaced, as JSON would replace it.
func clip(s string, limit int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= limit && quoted(s) <= limit {
		return s
	}
	size := len(`"…"`)
	for i, r := range s {
		if size += quoted(string(r)) - len(`""`); size > limit {
			return s[:i] + "…"
		}
	}
	return s
}

// quoted is the size of a text in JSON.
func quoted(s string) int {
	b, _ := json.Marshal(s) // every string can be written
	return len(b)
}

// some keeps the first of many texts, as far as limit bytes of JSON go, and says how many there are more.
func some(texts []string, limit int) []string {
	var out []string
	limit -= lineKept // for the last one
	for i, text := range texts {
		text = clip(text, lineKept)
		if limit -= quoted(text) + len(","); limit < 0 {
			return append(out, fmt.Sprintf("and %d more", len(texts)-i))
		}
		out = append(out, text)
	}
	return out
}
