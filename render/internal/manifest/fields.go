package manifest

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Field finds a key of a mapping, through aliases and merge keys; nil if there is none.
func Field(n *yaml.Node, key string) *yaml.Node {
	n = follow(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	var merged *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch k := n.Content[i]; {
		case k.Value == key:
			return follow(n.Content[i+1])
		case k.Value == "<<" && merged == nil:
			merged = fieldOfMerge(follow(n.Content[i+1]), key)
		}
	}
	return merged
}

func fieldOfMerge(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.SequenceNode {
		return Field(n, key)
	}
	for _, item := range n.Content {
		if got := Field(item, key); got != nil {
			return got
		}
	}
	return nil
}

// follow ends aliases. Parse has refused those that go round in a circle.
func follow(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// Text is the value of a scalar; "" for anything else.
func Text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

// Object is what a Kubernetes object says of itself.
type Object struct {
	APIVersion, Kind, Name, Namespace string
	Annotations                       map[string]string
}

// ObjectOf reads what a document says of itself.
func ObjectOf(n *yaml.Node) Object {
	meta := Field(n, "metadata")
	o := Object{
		APIVersion: Text(Field(n, "apiVersion")), Kind: Text(Field(n, "kind")),
		Name: Text(Field(meta, "name")), Namespace: Text(Field(meta, "namespace")),
	}
	if notes := Field(meta, "annotations"); notes != nil && notes.Kind == yaml.MappingNode {
		o.Annotations = make(map[string]string, len(notes.Content)/2)
		for i := 0; i+1 < len(notes.Content); i += 2 {
			o.Annotations[notes.Content[i].Value] = Text(follow(notes.Content[i+1]))
		}
	}
	return o
}

// Items are the members of a list object, such as kind List or ConfigMapList; nil if n is none.
func Items(n *yaml.Node) []*yaml.Node {
	items := Field(n, "items")
	if items == nil || items.Kind != yaml.SequenceNode || !strings.HasSuffix(Text(Field(n, "kind")), "List") {
		return nil
	}
	out := make([]*yaml.Node, len(items.Content))
	for i, item := range items.Content {
		out[i] = follow(item)
	}
	return out
}

// Leaves calls visit for every scalar that is a value, aliases written out once.
func Leaves(n *yaml.Node, visit func(value string)) {
	switch n.Kind {
	case yaml.ScalarNode:
		visit(n.Value)
	case yaml.MappingNode:
		for i := 1; i < len(n.Content); i += 2 {
			Leaves(n.Content[i], visit)
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			Leaves(item, visit)
		}
	}
}

// Split cuts a file at the lines that separate documents; parts without content are left out.
func Split(raw []byte) [][]byte {
	var parts [][]byte
	for _, part := range separator.Split(string(raw), -1) {
		for line := range strings.Lines(part) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				parts = append(parts, []byte(part))
				break
			}
		}
	}
	return parts
}

var separator = regexp.MustCompile(`(?m)^---(?:[ \t]+#.*)?[ \t]*\r?$`)
