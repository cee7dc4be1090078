package render

import (
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sigs.k8s.io/kustomize/api/types"
)

// memory is a Tree without links.
type memory struct{ fstest.MapFS }

func (m memory) Hash(name string) (string, bool) {
	_, err := m.Stat(name)
	return name, err == nil
}
func (m memory) Resolve(name string) (string, error) { return name, nil }

// inProcess serves a tree without a process: what is tested here is what the child does before kustomize.
func inProcess(t testing.TB, tree Tree) *source {
	limits := Limits{Elements: 1000, Aliases: 50, Nesting: 20, Kustomizations: 20, Objects: 50}.orDefault()
	fromParent, toChild := io.Pipe()
	fromChild, toParent := io.Pipe()
	files := &served{tree: tree, limits: limits, reads: map[string]string{}, failures: map[string]error{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			h, _, err := readFrame(fromChild, 0)
			if err != nil {
				return
			}
			a, content := files.read(h.Path)
			if writeFrame(toChild, header{Op: opAnswer, Answer: &a}, content) != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		toChild.Close()
		toParent.Close()
		<-done
	})
	return newSource(listen(fromParent, toParent, limits), nil, limits)
}

// FuzzScan holds what the scan promises for any kustomization: it ends soon, without a panic, and lets nothing pass
// that kustomize would look for outside of the repository.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		"resources: [cm.yaml, ../base]\nnamePrefix: x\n", "resources: ['https://x/y']\n", "transformers:\n- |\n  apiVersion: builtin\n  kind: PatchTransformer\n  metadata: {name: x}\n  path: ../../x\n",
		"patches: [{path: cm.yaml}, {patch: '[{\"op\":\"add\"}]'}]\n", "generators: [cm.yaml, ../base]\n", "configMapGenerator: [{name: a, files: [a=b, =c, d=], envs: [x]}]\n",
		"helmCharts: [{}]\n", "components: [../base]\n", "openapi: {path: 'git@github.com:o/r'}\n", "Resources: [http:x]\nRESOURCES: [y]\n", "patchesStrategicMerge: ['a: b', 'github.com/o/r', \"x\\ny\"]\n",
		"resources: &a [cm.yaml]\nbases: *a\n", "resources: [.., '..', ./, '/', ' ']\n", "kind: Component\n", "crds: [cm.yaml]\nreplacements: [{path: cm.yaml}]\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tree := memory{fstest.MapFS{
			"app/kustomization.yaml":  {Data: []byte(text)},
			"app/cm.yaml":             {Data: []byte(configMap("cm"))},
			"base/kustomization.yaml": {Data: []byte("resources: [x.yaml]\n")},
			"base/x.yaml":             {Data: []byte(configMap("x"))},
		}}
		began := time.Now()
		err := newScan(inProcess(t, tree), Limits{Kustomizations: 20, Objects: 50}.orDefault()).overlay("app")
		if took := time.Since(began); took > 2*time.Second {
			t.Fatalf("it took %s", took)
		}
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without a text")
			}
			return
		}
		k := &types.Kustomization{}
		if err := k.Unmarshal([]byte(text)); err != nil {
			t.Fatalf("what is no kustomization passed: %v", err)
		}
		for _, ref := range references(k) {
			if ref.role == asInline || strings.ContainsAny(ref.value, "\n:{") {
				continue // written in place
			}
			if _, err := fs.Stat(tree, mustLocate(t, ref)); err != nil {
				t.Fatalf("%s %q passed: %v", ref.field, ref.value, err)
			}
		}
	})
}

func mustLocate(t *testing.T, ref reference) string {
	t.Helper()
	target, why := locate("app", ref.value, func(string) bool { return true })
	if why != "" {
		t.Fatalf("%s %q passed, although it %s", ref.field, ref.value, why)
	}
	return target
}
