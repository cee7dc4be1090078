package validate_test

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/validate"
	"github.com/nexus-platform/reconciler/validate/internal/load"
	"github.com/nexus-platform/reconciler/validate/kinds"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Every folder is a set with a fault. Beside the set it may hold environment.yaml,
// release.yaml (the policy), cluster.yaml (what is there; without it there is no
// cluster), owned.yaml (what is there and ours) and version (of the server).
func TestEveryFaultIsFoundWithItsPlaceAndWhatToDo(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			set := load.Set(t, dir, "environment.yaml", "release.yaml", "cluster.yaml", "owned.yaml")
			findings, err := checkerOf(t, dir).Check(t.Context(), set)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join(dir, "findings.golden"), findings)
		})
	}
}

func golden(t *testing.T, file string, findings validate.Findings) {
	t.Helper()
	var b strings.Builder
	for _, f := range findings {
		b.WriteString(string(f.Severity) + " " + f.Rule + "\n  " + f.String() + "\n")
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("findings differ from %s (-want +got):\n%s", file, diff)
	}
}

func checkerOf(t *testing.T, dir string) *validate.Checker {
	t.Helper()
	c := &validate.Checker{}
	read := func(name string, into any) bool {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if os.IsNotExist(err) {
			return false
		}
		if err == nil {
			err = yaml.UnmarshalStrict(b, into)
		}
		if err != nil {
			t.Fatal(err)
		}
		return true
	}
	e := &v1alpha1.Environment{}
	if read("environment.yaml", e) {
		c.Environment = e
	}
	p := &v1alpha1.ReleasePolicy{}
	if read("release.yaml", p) {
		c.Policy = p
	}
	var number string
	if read("version", &number) {
		c.ServerVersion = version.MustParseGeneric(number)
	}
	owned := load.File(t, filepath.Join(dir, "owned.yaml"))
	for _, o := range owned {
		c.Owned = append(c.Owned, object.Record{Ref: o.Ref})
	}
	if _, err := os.Stat(filepath.Join(dir, "cluster.yaml")); err == nil {
		c.World = worldOf(t, append(owned, load.File(t, filepath.Join(dir, "cluster.yaml"))...))
	}
	return c
}

// world is a cluster as a list of metadata.
type world struct {
	live      map[object.Ref]*metav1.PartialObjectMetadata
	forbidden map[object.Ref]bool
	err       error
	asked     []object.Ref
}

func worldOf(t *testing.T, objects []object.Object) *world {
	t.Helper()
	w := &world{live: map[object.Ref]*metav1.PartialObjectMetadata{}, forbidden: map[object.Ref]bool{}}
	for _, o := range objects {
		if o.Body.GetAnnotations()["test/forbidden"] != "" {
			w.forbidden[o.Ref] = true
			continue
		}
		b, err := o.Body.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		m := &metav1.PartialObjectMetadata{}
		if err := yaml.Unmarshal(b, m); err != nil {
			t.Fatal(err)
		}
		w.live[o.Ref] = m
	}
	return w
}

func (w *world) Metadata(_ context.Context, ref object.Ref) (*metav1.PartialObjectMetadata, error) {
	w.asked = append(w.asked, ref)
	if w.forbidden[ref] {
		return nil, apierrors.NewForbidden(schema.GroupResource{Resource: strings.ToLower(ref.Kind)}, ref.Name, nil)
	}
	return w.live[ref], w.err
}

// Scope knows the built-in kinds, and Gadget in example.com.
func (w *world) Scope(_ context.Context, gvk schema.GroupVersionKind) (namespaced, known bool, err error) {
	if gvk == (schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Gadget"}) {
		return true, true, w.err
	}
	return !kinds.ClusterWide(gvk.GroupKind()), kinds.BuiltIn(gvk), w.err
}

func rules(f validate.Findings) []string {
	var names []string
	for _, x := range f {
		names = append(names, x.Rule)
	}
	return slices.Compact(slices.Sorted(slices.Values(names)))
}
