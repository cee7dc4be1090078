package scan

import (
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/kustomize/api/types"

	"github.com/nexus-platform/reconciler/render/internal/source"
	"github.com/nexus-platform/reconciler/render/internal/wire"
)

// tree answers from memory: content by path.
type tree map[string]string

func (m tree) Ask(name string) (wire.Answer, []byte, error) {
	if content, ok := m[name]; ok {
		return wire.Answer{Kind: wire.Regular}, []byte(content), nil
	}
	for file := range m {
		if strings.HasPrefix(file, name+"/") {
			return wire.Answer{Kind: wire.Directory, Real: name}, nil, nil
		}
	}
	return wire.Answer{}, nil, nil
}

func configMap(name string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n"
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
		files := tree{
			"app/kustomization.yaml": text, "app/cm.yaml": configMap("cm"),
			"base/kustomization.yaml": "resources: [x.yaml]\n", "base/x.yaml": configMap("x"),
		}
		limits := wire.Limits{Elements: 1000, Aliases: 50, Nesting: 20, Kustomizations: 20, Objects: 50}.OrDefault()
		began := time.Now()
		err := New(source.New(files, nil, limits), limits).Overlay("app")
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
			if a, _, _ := files.Ask(mustLocate(t, ref)); a.Kind == wire.Absent {
				t.Fatalf("%s %q passed", ref.field, ref.value)
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
