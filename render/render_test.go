package render

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/object"
)

var update = flag.Bool("update", false, "write golden files anew")

func example(t *testing.T) Tree {
	t.Helper()
	tree, err := DirTree("../examples/nexus-platform")
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestAnOverlayBecomesASetWithItsPolicyAndOrigins(t *testing.T) {
	got, err := (&Renderer{}).Render(t.Context(), Request{Tree: example(t), Path: "overlays/production"})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Policy) == 0 || got.PolicyPath != "overlays/production/release.yaml" {
		t.Errorf("policy: %d bytes at %s", len(got.Policy), got.PolicyPath)
	}
	if got.Cached || got.PeakRSS < 1<<20 || got.Took <= 0 {
		t.Errorf("cached %v, peak %d, took %s", got.Cached, got.PeakRSS, got.Took)
	}
	for _, o := range got.Set.Objects {
		if o.Origin.Path == "" {
			t.Errorf("%s comes from nowhere", o.Ref)
		}
	}
}

// golden renders testdata/<name>/app and compares all that is rendered, with its origins.
func TestGolden(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*/app")
	if err != nil || len(dirs) == 0 {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		dir = filepath.Dir(dir)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			tree, err := DirTree(dir)
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			got, err := (&Renderer{Command: childCommand, Limits: small()}).Render(t.Context(), Request{Tree: tree, Path: "app"})
			if err != nil {
				text.WriteString(err.Error() + "\n")
			} else {
				for _, o := range got.Set.Objects {
					body, err := yaml.Marshal(o.Body.Object)
					if err != nil {
						t.Fatal(err)
					}
					text.WriteString("# " + o.Ref.String() + " from " + o.Origin.String() + "\n" + string(body) + "---\n")
				}
			}
			file := filepath.Join(dir, "golden")
			if *update {
				if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), text.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// plainKustomize renders with kustomize alone, on disk, as the objects that kubectl would send.
func plainKustomize(t *testing.T, dir string) []*unstructured.Unstructured {
	t.Helper()
	options := krusty.MakeDefaultOptions()
	options.LoadRestrictions = types.LoadRestrictionsNone
	built, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var objects []*unstructured.Unstructured
	for _, r := range built.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := yaml.YAMLToJSON(text)
		if err != nil {
			t.Fatal(err)
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(raw); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, u)
	}
	return objects
}

func TestTheObjectsAreKustomizesOwn(t *testing.T) {
	for _, dir := range []string{"../examples/nexus-platform/overlays/production", "../examples/nexus-platform/overlays/staging", "testdata/kustomize-features/app"} {
		t.Run(dir, func(t *testing.T) {
			root := dir[:strings.LastIndex(dir, "/")]
			if strings.Contains(dir, "overlays") {
				root = filepath.Dir(root)
			}
			tree, err := DirTree(root)
			if err != nil {
				t.Fatal(err)
			}
			rel, err := filepath.Rel(root, dir)
			if err != nil {
				t.Fatal(err)
			}
			got, err := (&Renderer{Command: childCommand}).Render(t.Context(), Request{Tree: tree, Path: rel})
			if err != nil {
				t.Fatal(err)
			}
			want := plainKustomize(t, dir)
			if len(want) != got.Set.Len() {
				t.Errorf("%d objects, not %d", got.Set.Len(), len(want))
			}
			for _, u := range want {
				o, ok := got.Set.Get(object.RefOf(u))
				if !ok {
					t.Errorf("%s is missing", object.RefOf(u))
					continue
				}
				if u.GetKind() == "Secret" { // stringData is encoded
					delete(u.Object, "stringData")
					delete(u.Object, "data")
					o.Body = o.Body.DeepCopy()
					delete(o.Body.Object, "data")
				}
				if diff := cmp.Diff(u.Object, o.Body.Object); diff != "" {
					t.Errorf("%s (-kustomize +render)\n%s", o.Ref, diff)
				}
			}
		})
	}
}

func TestTheSameTreeGivesTheSameBytes(t *testing.T) {
	var first []byte
	for range 5 {
		got, err := (&Renderer{Command: childCommand}).Render(t.Context(), Request{Tree: example(t), Path: "overlays/production"})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(got.Set)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = raw
		} else if string(raw) != string(first) {
			t.Fatalf("(-first +now)\n%s", cmp.Diff(string(first), string(raw)))
		}
	}
}

func TestStringDataBecomesDataAsTheServerWouldHaveIt(t *testing.T) {
	got := files{"app/kustomization.yaml": "resources: [s.yaml]\n",
		"app/s.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: b2xk, c: a2VwdA==}\nstringData: {a: new, b: 'yes'}\n" +
			"---\napiVersion: v1\nkind: Secret\nmetadata: {name: empty}\nstringData:\n" +
			"---\napiVersion: example.com/v1\nkind: Secret\nmetadata: {name: other}\nstringData: {a: b}\n"}.mustRender(t)
	s, _ := got.Set.Get(object.Ref{Kind: "Secret", Name: "s"})
	if diff := cmp.Diff(map[string]any{"a": "bmV3", "b": "eWVz", "c": "a2VwdA=="}, s.Body.Object["data"]); diff != "" || s.Body.Object["stringData"] != nil {
		t.Error(diff)
	}
	if empty, _ := got.Set.Get(object.Ref{Kind: "Secret", Name: "empty"}); empty.Body.Object["stringData"] != nil || empty.Body.Object["data"] != nil {
		t.Errorf("empty has %v", empty.Body.Object)
	}
	if other, _ := got.Set.Get(object.Ref{Group: "example.com", Kind: "Secret", Name: "other"}); other.Body.Object["stringData"] == nil {
		t.Error("a Secret of another group was changed")
	}
}

func TestNumbersAreWhatTheServerWouldRead(t *testing.T) {
	o, _ := files{"app/kustomization.yaml": "resources: [x.yaml]\n",
		"app/x.yaml": "apiVersion: example.com/v1\nkind: X\nmetadata: {name: x}\nspec: {int: 3, octal: 0644, big: 9007199254740993, float: 1.5, exp: 1e3, yes: yes, text: '3'}\n"}.
		mustRender(t).Set.Get(object.Ref{Group: "example.com", Kind: "X", Name: "x"})
	want := map[string]any{"int": int64(3), "octal": int64(420), "big": int64(9007199254740993), "float": 1.5, "exp": int64(1000), "yes": "yes", "text": "3"}
	if diff := cmp.Diff(want, o.Body.Object["spec"]); diff != "" {
		t.Error(diff)
	}
}

func TestTheCacheHitsUntilSomethingThatWasReadChanges(t *testing.T) {
	f := files{
		"app/kustomization.yaml": "resources: [../base, cm.yaml]\n", "app/cm.yaml": configMap("cm"),
		"base/kustomization.yaml": "resources: [cm.yaml]\n", "base/cm.yaml": configMap("base"), "base/unused.yaml": "x",
		"link": "-> base",
	}
	r := &Renderer{Command: childCommand}
	render := func(more files, request Request) *Result {
		t.Helper()
		request.Tree = f.with(more).tree(t)
		if request.Path == "" {
			request.Path = "app"
		}
		got, err := r.Render(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := render(nil, Request{})
	if again := render(nil, Request{}); !again.Cached || again.Set != first.Set || again.PeakRSS != 0 {
		t.Error("the same tree missed")
	}
	if !render(files{"base/unused.yaml": "y", "elsewhere/x": "new"}, Request{}).Cached {
		t.Error("a file that was not read made it miss")
	}
	for name, more := range map[string]files{
		"a resource":        {"base/cm.yaml": configMap("changed")},
		"the kustomization": {"app/kustomization.yaml": "resources: [../base, cm.yaml]\n# x\n"},
		"a policy comes":    {"app/release.yaml": "x: y\n"},
	} {
		if render(more, Request{}).Cached {
			t.Errorf("%s: it hit", name)
		}
		if render(nil, Request{}).Cached { // only the newest of an overlay is remembered
			t.Errorf("%s: going back hit", name)
		}
	}
	if render(nil, Request{AgeKeys: []string{newKey(t).String()}}).Cached {
		t.Error("other keys hit")
	}
	if render(nil, Request{Path: "base"}).Cached {
		t.Error("another overlay hit")
	}
	if !render(nil, Request{}).Cached {
		t.Error("another overlay pushed this one out")
	}
	if _, err := r.Render(t.Context(), Request{Tree: f.with(files{"app/Kustomization": "resources: []\n"}).tree(t), Path: "app"}); err == nil {
		t.Error("a second kustomization, where none was before, was not seen")
	}
	f = f.with(files{"app/kustomization.yaml": "resources: [../link]\n", "other/kustomization.yaml": "resources: [cm.yaml]\n", "other/cm.yaml": configMap("other")})
	render(nil, Request{})
	if render(files{"link": "-> other"}, Request{}).Cached {
		t.Error("a link that leads elsewhere hit")
	}
}

func TestTheCacheIsBoundedByObjects(t *testing.T) {
	r := &Renderer{}
	set := func(n int) *Result {
		var all []object.Object
		for i := range n {
			all = append(all, object.Object{Ref: cm(string(rune('a'+i%26)) + strings.Repeat("x", i/26))})
		}
		s, err := object.NewSet(all)
		if err != nil {
			t.Fatal(err)
		}
		return &Result{Set: s}
	}
	for i := range 50 {
		r.remember(string(rune('A'+i)), set(1000))
	}
	if len(r.results) != cacheObjects/1000 || r.results[0].key != string(rune('A'+49)) {
		t.Errorf("%d results, the newest %s", len(r.results), r.results[0].key)
	}
	r.remember("huge", set(cacheObjects+1))
	if len(r.results) != 1 || r.results[0].key != "huge" {
		t.Errorf("%d results beside a huge one", len(r.results))
	}
}

func TestRendersRunSideBySideButNotMoreThanAllowed(t *testing.T) {
	r := &Renderer{Command: childCommand, Parallel: 2}
	gauge := &gauge{}
	var all sync.WaitGroup
	for i := range 8 {
		tree := plain("namePrefix: x" + string(rune('a'+i)) + "-\n").tree(t)
		all.Go(func() {
			if _, err := r.Render(t.Context(), Request{Tree: gauge.around(tree), Path: "app"}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if gauge.most > 2 {
		t.Errorf("%d at once", gauge.most)
	}
}

// gauge counts how many trees are being read at once: from the first file of a render to its last.
type gauge struct {
	mu        sync.Mutex
	now, most int
}

func (g *gauge) around(tree Tree) Tree { return &gauged{Tree: tree, g: g} }

type gauged struct {
	Tree
	g    *gauge
	open bool
}

func (t *gauged) ReadFile(name string) ([]byte, error) {
	t.g.mu.Lock()
	defer t.g.mu.Unlock()
	if !t.open {
		t.open = true
		t.g.now++
		t.g.most = max(t.g.most, t.g.now)
	}
	if strings.HasSuffix(name, "cm.yaml") { // the last file that is read
		t.g.now--
	}
	return t.Tree.ReadFile(name)
}

func TestAWaitForASlotEndsWithItsContext(t *testing.T) {
	r := &Renderer{Command: childCommand}
	tree := &blocking{Tree: plain("").tree(t), blocked: make(chan struct{}), release: make(chan struct{})}
	done := make(chan error)
	go func() {
		_, err := r.Render(t.Context(), Request{Tree: tree, Path: "app"})
		done <- err
	}()
	<-tree.blocked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Render(ctx, Request{Tree: plain("").tree(t), Path: "app"}); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	close(tree.release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// gitHashOfX is what git hash-object says of a file that holds an x.
const gitHashOfX = "c1b0730e0133447badcfd47fd144e254807b06e1"

func TestReadsHoldWhatWasReadAndWhatWasNotThere(t *testing.T) {
	got := plain("configMapGenerator: [{name: x, files: [f]}]\n").with(files{"app/f": "x", "app/unused": "y"}).mustRender(t)
	want := []string{"app", "app/Kustomization", "app/cm.yaml", "app/f", "app/kustomization.yaml", "app/kustomization.yml", "app/release.yaml"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(got.Reads))); diff != "" {
		t.Error(diff)
	}
	for name, state := range map[string]string{"app/release.yaml": "", "app": "directory app", "app/f": gitHashOfX} {
		if got.Reads[name] != state {
			t.Errorf("%s: %q", name, got.Reads[name])
		}
	}
}

func TestFilesOutsideTheOverlayButInsideTheRepositoryAreRead(t *testing.T) {
	got := files{
		"deep/er/app/kustomization.yaml": "resources: [../../../shared/cm.yaml]\nconfigMapGenerator: [{name: x, files: [../../../shared/data], options: {disableNameSuffixHash: true}}]\n",
		"shared/cm.yaml":                 configMap("shared"), "shared/data": "x",
	}
	res, err := (&Renderer{Command: childCommand}).Render(t.Context(), Request{Tree: got.tree(t), Path: "deep/er/app"})
	if err != nil {
		t.Fatal(err)
	}
	if res.Set.Len() != 2 {
		t.Errorf("%d objects", res.Set.Len())
	}
}

func TestTheRootOfTheRepositoryCanBeTheOverlay(t *testing.T) {
	f := files{"kustomization.yaml": "resources: [base]\n", "base/kustomization.yaml": "resources: [cm.yaml]\n", "base/cm.yaml": configMap("x"), "release.yaml": "a: b\n"}
	res, err := (&Renderer{Command: childCommand}).Render(t.Context(), Request{Tree: f.tree(t), Path: "."})
	if err != nil {
		t.Fatal(err)
	}
	if res.Set.Len() != 1 || res.PolicyPath != "release.yaml" || string(res.Policy) != "a: b\n" {
		t.Errorf("%d objects, %q", res.Set.Len(), res.Policy)
	}
}
