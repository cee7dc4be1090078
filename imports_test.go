// Package reconciler_test holds the sources to the architecture: who may import whom, and why.
package reconciler_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/nexus-platform/reconciler/"

// layers: arrows go down only. A package may import those of its own folder, and what stands here.
var layers = map[string][]string{
	"object":      {},
	"api":         {"object"},
	"failpoint":   {},
	"gitsource":   {},
	"probe":       {},
	"manifests":   {},
	"examples":    {},
	"render":      {"object"},
	"validate":    {"object", "api"},
	"kube":        {"object", "failpoint"},
	"health":      {"object"},
	"journal":     {"object", "failpoint"},
	"reconcile":   {"object", "api", "failpoint", "gitsource", "render", "validate", "kube", "health", "journal", "probe"},
	"controller":  {"object", "api", "gitsource", "render", "kube", "journal", "reconcile"},
	"e2e/cluster": {},
}

// owners: one package alone knows each of these libraries, so that it can be replaced, and its traps are in one place.
var owners = []struct {
	library string
	may     []string
	why     string
}{
	{"github.com/go-git/", []string{"gitsource"}, "one place knows what Git servers and objects may do to us"},
	{"sigs.k8s.io/kustomize/", []string{"render"}, "kustomize runs in a sandbox of its own and nowhere else"},
	{"github.com/getsops/", []string{"render"}, "keys are held by the render process alone"},
	{"k8s.io/client-go/kubernetes/typed", []string{"journal"}, "only kube and journal write to a cluster"},
	{"k8s.io/client-go/dynamic", []string{"kube"}, "only kube changes cluster objects"},
	{"sigs.k8s.io/controller-runtime", []string{"controller", "cmd"}, "the queue is the controller's"},
}

func TestImportsFollowTheArchitecture(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "devcluster" || strings.HasPrefix(d.Name(), ".") && path != ".") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			check(t, filepath.ToSlash(path), name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, file, imported string) {
	t.Helper()
	home, _, _ := strings.Cut(file, "/")
	for _, o := range owners {
		if strings.HasPrefix(imported, o.library) && !slices.Contains(o.may, home) && home != "e2e" {
			t.Errorf("%s imports %s: %s", file, imported, o.why)
		}
	}
	if !strings.HasPrefix(imported, module) || home == "cmd" || home == "e2e" {
		return
	}
	allowed, known := layers[home]
	if !known {
		t.Errorf("%s: folder %s stands in no layer: add it, with its reason", file, home)
		return
	}
	target, _, _ := strings.Cut(strings.TrimPrefix(imported, module), "/")
	if target != home && !slices.Contains(allowed, target) {
		t.Errorf("%s imports %s: %s may import %v", file, target, home, allowed)
	}
}

func TestFilesStaySmall(t *testing.T) {
	const lines = 400
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != "." {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(d.Name(), "zz_generated") {
			return nil
		}
		b, err := os.ReadFile(path)
		if n := strings.Count(string(b), "\n"); n > lines {
			t.Errorf("%s has %d lines, more than %d", path, n, lines)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
