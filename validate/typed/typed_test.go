package typed_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/validate/internal/load"
	"github.com/nexus-platform/reconciler/validate/typed"
)

var update = flag.Bool("update", false, "write the golden files anew")

// canary stands in many values of the testdata: no finding may repeat it.
const canary = "CANARY"

func TestEveryFieldAtFaultIsFoundWithoutACluster(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*")
	if err != nil || len(dirs) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			findings, err := typed.Check(t.Context(), load.Set(t, dir), nil)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for _, f := range findings {
				b.WriteString(string(f.Severity) + " " + f.Rule + "\n  " + f.String() + "\n")
			}
			if strings.Contains(b.String(), canary) {
				t.Errorf("a finding repeats a value:\n%s", b.String())
			}
			file := filepath.Join(dir, "findings.golden")
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
		})
	}
}

func TestOnlyTheSelectedObjectsAreLookedAt(t *testing.T) {
	set := load.Set(t, "testdata/fields-of-built-in-kinds")
	findings, err := typed.Check(t.Context(), set, func(ref object.Ref) bool { return ref.Name == "typo" })
	if err != nil {
		t.Fatal(err)
	}
	if len(findings) == 0 {
		t.Fatal("nothing found")
	}
	for _, f := range findings {
		if f.Object.Name != "typo" {
			t.Errorf("found something about %s", f.Object)
		}
	}
}

func TestTheObjectsOfTheSetStayAsTheyWere(t *testing.T) {
	dirs, _ := filepath.Glob("testdata/*")
	for _, dir := range dirs {
		set := load.Set(t, dir)
		if _, err := typed.Check(t.Context(), set, nil); err != nil {
			t.Fatal(err)
		}
		for _, o := range set.Objects {
			if now, _ := object.Digest(o.Body.Object); now != o.Digest {
				t.Errorf("%s: %s was changed", dir, o.Ref)
			}
		}
	}
}

func TestACancelledCheckEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := typed.Check(ctx, load.Set(t, "testdata/fields-of-built-in-kinds"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAnEmptySetIsSound(t *testing.T) {
	if findings, err := typed.Check(t.Context(), nil, nil); len(findings) > 0 || err != nil {
		t.Error(findings, err)
	}
}

// FuzzCheck throws any JSON at the schemas, as an object and as the CRD of one.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{
		`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"replicas":"a","template":{"spec":{"containers":[null,{"resources":{"limits":{"cpu":"x"}}}]}}}}`,
		`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"data":{"a":"!"},"stringData":[]}`,
		`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"a"},"spec":{"group":"e.io","names":{"kind":"K"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"items":[]}}}}}]}}`,
		`{"apiVersion":"example.org/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"size":1e99,"tags":[[],{}],"free":null}}`,
		`{"apiVersion":"v1","kind":"List","items":3}`,
	} {
		f.Add([]byte(seed))
	}
	crd := load.File(f, "testdata/resources-of-a-crd-in-the-set/app.yaml")[0]
	f.Fuzz(func(t *testing.T, b []byte) {
		u := &unstructured.Unstructured{}
		if u.UnmarshalJSON(b) != nil {
			return
		}
		o, err := object.NewObject(u, object.Origin{})
		if err != nil || o.Ref == crd.Ref {
			return
		}
		set, err := object.NewSet([]object.Object{o, crd})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := typed.Check(t.Context(), set, nil); err != nil {
			t.Fatal(err)
		}
	})
}
