package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the top of the checkout.
const root = "../.."

// page is a Markdown file.
type page struct {
	name   string // relative to root
	text   string
	blocks []block
}

// block is what a fence encloses.
type block struct {
	language string
	line     int
	text     string
}

func read(t *testing.T, name string) page {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	p := page{name: name, text: string(b)}
	var open *block
	indent := 0
	for i, line := range strings.Split(p.text, "\n") {
		language, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && open == nil:
			open = &block{language: language, line: i + 1}
			indent = strings.Index(line, "```")
		case fence:
			p.blocks = append(p.blocks, *open)
			open = nil
		case open != nil:
			open.text += line[min(indent, len(line)):] + "\n"
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block has no end", name, open.line)
	}
	return p
}

// prose is the page without its blocks.
func (p page) prose() string {
	text := p.text
	for _, b := range p.blocks {
		text = strings.ReplaceAll(text, b.text, "")
	}
	return text
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// linked is the pages under docs/ in the order of the list in the README: that in which a reader would go through them.
func linked(t *testing.T) []page {
	t.Helper()
	_, list, ok := strings.Cut(read(t, "README.md").text, "\n## Documentation\n")
	if !ok {
		t.Fatal("README.md has no section Documentation")
	}
	list, _, _ = strings.Cut(list, "\n## ")
	var pages []page
	for _, m := range link.FindAllStringSubmatch(list, -1) {
		if filepath.Dir(m[1]) == "docs" && filepath.Ext(m[1]) == ".md" {
			pages = append(pages, read(t, m[1]))
		}
	}
	return pages
}
