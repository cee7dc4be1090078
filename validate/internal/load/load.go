// Package load reads the YAML files of tests into objects that know their lines.
package load

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/object"
)

// File reads all documents of one file; none if there is no such file.
func File(t testing.TB, path string) []object.Object {
	t.Helper()
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return Documents(t, filepath.Base(path), b)
}

// Documents reads YAML documents separated by lines of three dashes.
func Documents(t testing.TB, name string, b []byte) []object.Object {
	t.Helper()
	var objects []object.Object
	line := 1
	for _, doc := range bytes.SplitAfter(b, []byte("\n---\n")) {
		start := line
		line += bytes.Count(doc, []byte("\n"))
		doc = bytes.TrimSuffix(doc, []byte("---\n"))
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		j, err := yaml.YAMLToJSON(doc)
		if err != nil {
			t.Fatalf("%s:%d: %v", name, start, err)
		}
		u := &unstructured.Unstructured{}
		if _, _, err := unstructured.UnstructuredJSONScheme.Decode(j, nil, u); err != nil { // decodes even what it refuses
			if err := yaml.Unmarshal(doc, &u.Object); err != nil {
				t.Fatalf("%s:%d: %v", name, start, err)
			}
		}
		o, err := object.NewObject(u, object.Origin{Path: name, Line: start})
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o)
	}
	return objects
}

// Set makes a set of all files of a folder but those named.
func Set(t testing.TB, dir string, but ...string) *object.Set {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var objects []object.Object
	for _, f := range files {
		if !slices.Contains(but, filepath.Base(f)) {
			objects = append(objects, File(t, f)...)
		}
	}
	set, err := object.NewSet(objects)
	if err != nil {
		t.Fatal(err)
	}
	return set
}
