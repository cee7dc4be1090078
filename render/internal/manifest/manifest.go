// Package manifest reads YAML that nobody has vetted: it finds what would blow up a parser, or mislead a reader, before anybody expands it.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits bound one file. Elements and Nesting are counted as if every alias were written out.
type Limits struct {
	Elements int // scalars, mappings and lists
	Aliases  int
	Nesting  int // levels
}

// Document is one document of a file.
type Document struct {
	Root *yaml.Node // the value itself, not the document node around it
	Line int        // first line of the value, from 1
}

// Error says what is wrong with a file, and where. Line is 0 if unknown.
type Error struct {
	Line   int
	Reason string
}

func (e *Error) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s", e.Line, e.Reason)
	}
	return e.Reason
}

// Errors are all that is wrong with a file, in order of line.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "; ")
}

// Parse reads all documents of a file; empty ones are left out. Its error is an
// Errors: of one *Error that ended the reading, or of all keys that stand twice.
func Parse(raw []byte, limits Limits) ([]Document, error) {
	if err := tooMany(raw, limits); err != nil {
		return nil, Errors{err}
	}
	var docs []Document
	var twice Errors
	elements, aliases := 0, 0
	for decoder := yaml.NewDecoder(bytes.NewReader(raw)); ; {
		var n yaml.Node
		err := decoder.Decode(&n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, Errors{syntax(err)}
		}
		if len(n.Content) == 0 || isNull(n.Content[0]) {
			continue
		}
		root := n.Content[0]
		m := measurer{limits: limits, elements: elements, aliases: aliases, known: map[*yaml.Node]measure{}}
		got, fault := m.of(root, 1)
		if fault != nil {
			return nil, Errors{fault}
		}
		elements, aliases = elements+got.elements, m.aliases
		if elements > limits.Elements {
			return nil, Errors{{root.Line, fmt.Sprintf("holds more than %d elements, aliases written out", limits.Elements)}}
		}
		twice = append(twice, m.twice...)
		docs = append(docs, Document{Root: root, Line: root.Line})
	}
	if len(twice) > 0 {
		return nil, twice
	}
	return docs, nil
}

// tooMany refuses what would cost the parser itself too much memory: every element has at least
// one of these signs before it.
func tooMany(raw []byte, limits Limits) *Error {
	signs := 0
	for _, sign := range []byte("\n,[{") {
		signs += bytes.Count(raw, []byte{sign})
	}
	if signs > 2*limits.Elements {
		return &Error{Reason: fmt.Sprintf("holds more than %d elements", limits.Elements)}
	}
	return nil
}

// lineOf finds the line in a message of the parser: "yaml: line 7: did not find …".
var lineOf = regexp.MustCompile(`line (\d+): (.*)$`)

func syntax(err error) *Error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := lineOf.FindStringSubmatch(text); m != nil {
		line, _ := strconv.Atoi(m[1])
		return &Error{Line: line, Reason: "is not YAML: " + m[2]}
	}
	return &Error{Reason: "is not YAML: " + text}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

type measure struct{ elements, levels int }

// measurer finds out how large a document is with all aliases written out, without writing them out.
type measurer struct {
	limits            Limits
	elements, aliases int // of the documents before, and of this one
	known             map[*yaml.Node]measure
	twice             Errors
}

// unfinished stands for the levels of an anchor whose value is still being measured.
const unfinished = -1

func (m *measurer) of(n *yaml.Node, level int) (measure, *Error) {
	if level > m.limits.Nesting {
		return measure{}, &Error{n.Line, fmt.Sprintf("is nested deeper than %d levels", m.limits.Nesting)}
	}
	if n.Kind == yaml.AliasNode {
		return m.ofAlias(n, level)
	}
	if n.Kind == yaml.ScalarNode {
		return measure{1, 1}, nil
	}
	if n.Anchor != "" {
		m.known[n] = measure{levels: unfinished}
	}
	sum := measure{1, 1}
	for _, child := range n.Content {
		got, err := m.of(child, level+1)
		if err != nil {
			return measure{}, err
		}
		sum.elements = min(sum.elements+got.elements, m.limits.Elements+1)
		sum.levels = max(sum.levels, got.levels+1)
	}
	if m.elements+sum.elements > m.limits.Elements {
		return measure{}, &Error{n.Line, fmt.Sprintf("holds more than %d elements, aliases written out", m.limits.Elements)}
	}
	if n.Kind == yaml.MappingNode {
		if err := m.keys(n); err != nil {
			return measure{}, err
		}
	}
	if n.Anchor != "" {
		m.known[n] = sum
	}
	return sum, nil
}

func (m *measurer) ofAlias(n *yaml.Node, level int) (measure, *Error) {
	if m.aliases++; m.aliases > m.limits.Aliases {
		return measure{}, &Error{n.Line, fmt.Sprintf("holds more than %d aliases", m.limits.Aliases)}
	}
	if n.Alias.Kind == yaml.ScalarNode {
		return measure{1, 1}, nil
	}
	got := m.known[n.Alias]
	if got.levels == unfinished {
		return measure{}, &Error{n.Line, "has an anchor that contains itself"}
	}
	if level+got.levels-1 > m.limits.Nesting {
		return measure{}, &Error{n.Line, fmt.Sprintf("is nested deeper than %d levels", m.limits.Nesting)}
	}
	return got, nil
}

// maxKey is far above the longest key that any API knows.
const maxKey = 4096

// keys remembers the keys of a mapping that stand there twice: parsers take one of the two without a word.
func (m *measurer) keys(n *yaml.Node) *Error {
	first := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode {
			continue
		}
		if len(k.Value) > maxKey {
			return &Error{k.Line, fmt.Sprintf("has a key of %d bytes", len(k.Value))}
		}
		if line, ok := first[k.Value]; ok {
			m.twice = append(m.twice, &Error{k.Line, fmt.Sprintf("key %.100q stands there twice (first in line %d)", k.Value, line)})
			continue
		}
		first[k.Value] = k.Line
	}
	return nil
}
