package render

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nexus-platform/reconciler/object"
)

// The test binary is also the render process, and the one that attacks its own sandbox.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case ChildVerb:
			os.Exit(ChildMain(os.Stdin, os.Stdout))
		case attackVerb:
			os.Exit(attack())
		}
	}
	os.Exit(run(m))
}

// childCommand starts a render process; nil: this binary.
var childCommand []string

// run gives the tests a child without the race detector, which would make it twenty times slower and larger: there is
// nothing to race with in it. Some tests use this binary all the same.
func run(m *testing.M) int {
	if raced {
		dir, err := os.MkdirTemp("", "render")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		child := filepath.Join(dir, "child")
		build := exec.Command("go", "build", "-o", child, "./testdata/child")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			panic(string(out))
		}
		childCommand = []string{child}
	}
	return m.Run()
}

// files is a working copy: content by path. A content that begins with "-> " is the target of a link.
type files map[string]string

func (f files) with(more files) files {
	all := files{}
	for _, m := range []files{f, more} {
		for name, content := range m {
			all[name] = content
		}
	}
	return all
}

// tree writes f to a directory.
func (f files) tree(t testing.TB) Tree {
	t.Helper()
	dir := t.TempDir()
	for name, content := range f {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			if err := os.Symlink(target, p); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := DirTree(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// small limits end a test soon that does not end by itself.
func small() Limits { return Limits{Time: 20 * time.Second} }

// render renders the overlay app of f.
func (f files) render(t testing.TB) (*Result, error) {
	t.Helper()
	return (&Renderer{Command: childCommand, Limits: small()}).Render(context.WithoutCancel(t.Context()), Request{Tree: f.tree(t), Path: "app"})
}

// mustRender renders the overlay app of f, which must work.
func (f files) mustRender(t testing.TB) *Result {
	t.Helper()
	got, err := f.render(t)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// mustRefuse has the overlay app of f refused with an error of type E that holds all the texts, and shows that the
// program renders the next commit.
func mustRefuse[E error](t testing.TB, f files, texts ...string) E {
	t.Helper()
	var e E
	_, err := f.render(t)
	if err == nil {
		t.Fatal("it was rendered")
	}
	if !errors.As(err, &e) {
		t.Fatalf("the error is no %T but %T: %v", e, err, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error does not say %q: %v", text, err)
		}
	}
	return e
}

// configMap is a ConfigMap of the given name.
func configMap(name string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {key: value}\n"
}

// plain is an overlay of one ConfigMap, with more lines for its kustomization.
func plain(lines string) files {
	return files{"app/kustomization.yaml": "resources: [cm.yaml]\n" + lines, "app/cm.yaml": configMap("cm")}
}

func cm(name string) object.Ref { return object.Ref{Kind: "ConfigMap", Name: name} }
