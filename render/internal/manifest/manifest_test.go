package manifest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

var limits = Limits{Elements: 1000, Aliases: 100, Nesting: 20}

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		lines []int  // of the documents
		err   string // else
	}{
		"nothing":                      {"", nil, ""},
		"comments and empty ones":      {"# x\n---\n---\n# y\n---\na: b\n---\nnull\n", []int{6}, ""},
		"two":                          {"a: b\n---\nc: d\n", []int{1, 3}, ""},
		"JSON":                         {`{"a": [1, 2]}`, []int{1}, ""},
		"aliases":                      {"a: &a [1, 2]\nb: *a\n", []int{1}, ""},
		"an anchor on a scalar":        {"a: &a x\nb: [*a, *a]\n", []int{1}, ""},
		"a key twice":                  {"a: 1\nb: 2\na: 3\n", nil, `line 3: key "a" stands there twice (first in line 1)`},
		"twice in two documents":       {"a: 1\na: 2\n---\nx:\n  b: 1\n  b: 2\n", nil, `line 2: key "a" stands there twice (first in line 1); line 6: key "b" stands there twice (first in line 5)`},
		"the same key in two places":   {"a: {x: 1}\nb: {x: 1}\n", []int{1}, ""},
		"not YAML":                     {"a: 1\nb: ]\n", nil, "line 1: is not YAML: did not find expected node content"}, // the parser counts so,
		"an anchor that contains it":   {"a: &a {b: *a}\n", nil, "line 1: has an anchor that contains itself"},
		"an alias to nothing":          {"a: *b\n", nil, "is not YAML: unknown anchor 'b' referenced"},
		"too deep":                     {strings.Repeat("[", 21) + strings.Repeat("]", 21), nil, "line 1: is nested deeper than 20 levels"},
		"too deep through an alias":    {"a: &a " + strings.Repeat("[", 12) + strings.Repeat("]", 12) + "\nb: " + strings.Repeat("[", 12) + "*a" + strings.Repeat("]", 12), nil, "line 2: is nested deeper than 20 levels"},
		"many":                         {"[" + strings.Repeat("1,", 1001) + "]", nil, "line 1: holds more than 1000 elements, aliases written out"},
		"many, before they are read":   {strings.Repeat("\n", 2001), nil, "holds more than 1000 elements"},
		"many through aliases":         {"a: &a [" + strings.Repeat("1,", 50) + "]\nb: [" + strings.Repeat("*a,", 50) + "]\n", nil, "line 2: holds more than 1000 elements, aliases written out"},
		"many in several documents":    {strings.Repeat("[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]\n---\n", 60), nil, "line 95: holds more than 1000 elements, aliases written out"},
		"many aliases":                 {"a: &a x\nb: [" + strings.Repeat("*a,", 101) + "]\n", nil, "line 2: holds more than 100 aliases"},
		"aliases of several documents": {strings.Repeat("a: &a x\nb: [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n---\n", 10), nil, "line 29: holds more than 100 aliases"},
	} {
		t.Run(name, func(t *testing.T) {
			docs, err := Parse([]byte(c.text), limits)
			var lines []int
			for _, d := range docs {
				lines = append(lines, d.Line)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != c.err {
				t.Errorf("the error is %q, not %q", text, c.err)
			}
			if diff := cmp.Diff(c.lines, lines); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFieldsAreFoundThroughAliasesAndMergeKeys(t *testing.T) {
	docs, err := Parse([]byte("x: &x {kind: Merged, a: x}\ny: &y {b: y, a: never}\nall:\n  <<: [*x, *y]\n  a: own\none:\n  <<: *x\nalias: *x\n"), limits)
	if err != nil {
		t.Fatal(err)
	}
	root := docs[0].Root
	for path, want := range map[string]string{"all kind": "Merged", "all a": "own", "all b": "y", "one a": "x", "alias a": "x", "all none": "", "none a": ""} {
		outer, inner, _ := strings.Cut(path, " ")
		if got := Text(Field(Field(root, outer), inner)); got != want {
			t.Errorf("%s is %q, not %q", path, got, want)
		}
	}
}

func TestSplitCutsWhereYAMLDoes(t *testing.T) {
	for text, n := range map[string]int{
		"a: b\n": 1, "a: b\n---\nc: d\n": 2, "---\na: b\n---\n# nothing\n---\nc: d\n": 2, "a: |\n  ---\n  x\n": 1, "a: b\r\n---\r\nc: d\r\n": 2, "--- # x\na: b\n": 1, "": 0,
	} {
		parts := Split([]byte(text))
		if len(parts) != n {
			t.Errorf("%q: %q", text, parts)
		}
	}
}

// FuzzParse holds what Parse promises: it ends soon, its error has a text, and what it passes can be expanded.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"a: b\n---\nc: d\n", "a: &a [*a]\n", "<<: [*a, *b]\n", "? [a]\n: b\n", "a: &a {b: 1}\nc: {<<: *a}\n", "&a [&b [*a]]", "- - - -\n", "{[a]: b}", "%YAML 1.1\n---\na: b\n",
		"a: !!binary x\n", "\ufeffa: b\n", "a: &x\nb: *x\n", "*a : b\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		began := time.Now()
		docs, err := Parse(raw, limits)
		if err != nil {
			var all Errors
			if !errors.As(err, &all) || len(all) == 0 || all.Error() == "" {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		for _, d := range docs {
			ObjectOf(d.Root)
			Items(d.Root)
			Leaves(d.Root, func(string) {})
			Field(d.Root, "x")
			if n := expanded(d.Root, 0); n > limits.Elements {
				t.Fatalf("it has %d elements", n)
			}
		}
		Split(raw)
		if took := time.Since(began); took > time.Second {
			t.Fatalf("it took %s", took)
		}
	})
}

// expanded counts elements by writing all aliases out, which is what Parse avoids.
func expanded(n *yaml.Node, level int) int {
	if level > limits.Nesting {
		return limits.Elements + 1
	}
	if n.Kind == yaml.AliasNode {
		return expanded(n.Alias, level)
	}
	sum := 1
	for _, child := range n.Content {
		sum += expanded(child, level+1)
	}
	return sum
}
