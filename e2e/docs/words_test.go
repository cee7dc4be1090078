package docs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/object"
)

// markdown is every page of the repository.
func markdown(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(files(t), func(name string) bool { return filepath.Ext(name) != ".md" || strings.Contains(name, "testdata/") })
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	t.Parallel()
	for _, name := range markdown(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, name).prose(), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || target == "" {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(name), target)); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			}
		}
	}
}

func TestEveryPageIsListedInTheReadme(t *testing.T) {
	t.Parallel()
	var have []string
	for _, p := range linked(t) {
		have = append(have, p.name)
	}
	for _, name := range markdown(t) {
		if filepath.Dir(name) == "docs" && !slices.Contains(have, name) {
			t.Errorf("the README does not link to %s", name)
		}
	}
}

// cell is what stands between backquotes in the first column of a table.
var cell = regexp.MustCompile("`([a-zA-Z.]+)`")

// documented is the fields that the tables of a page explain.
func documented(t *testing.T, name string) map[string]bool {
	t.Helper()
	fields := map[string]bool{}
	for _, line := range strings.Split(read(t, name).text, "\n") {
		if column, ok := strings.CutPrefix(line, "| "); ok {
			first, _, _ := strings.Cut(column, "|")
			for _, m := range cell.FindAllStringSubmatch(first, -1) {
				fields[m[1]] = true
			}
		}
	}
	return fields
}

// leaves is the paths of the fields of a schema that have no fields of their own.
func leaves(path string, s apiextensionsv1.JSONSchemaProps) []string {
	if len(s.Properties) == 0 || strings.HasSuffix(path, "Ref") {
		return []string{path}
	}
	var paths []string
	for name, field := range s.Properties {
		paths = append(paths, leaves(strings.TrimPrefix(path+"."+name, "."), field)...)
	}
	return paths
}

func TestEveryFieldOfAnEnvironmentIsDocumentedAndNoOther(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join(root, "manifests/base/crds/nexus.dev_environments.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(b, &crd); err != nil {
		t.Fatal(err)
	}
	const name = "docs/first-environment.md"
	table := documented(t, name)
	fields := leaves("", crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"])
	for _, field := range fields {
		covered := table[field]
		for at := range field {
			covered = covered || field[at] == '.' && table[field[:at]]
		}
		if !covered {
			t.Errorf("%s does not explain spec.%s", name, field)
		}
	}
	for field := range table {
		if !slices.ContainsFunc(fields, func(f string) bool {
			return f == field || strings.HasPrefix(f, field+".") || strings.HasSuffix(field, "Ref") && strings.HasPrefix(f, field)
		}) {
			t.Errorf("%s explains spec.%s, which there is not", name, field)
		}
	}
}

// policyFields is the paths of the fields of a release.yaml, by their JSON names.
func policyFields(path string, of reflect.Type) []string {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice || of.Kind() == reflect.Map {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || of.Implements(reflect.TypeFor[json.Marshaler]()) || reflect.PointerTo(of).Implements(reflect.TypeFor[json.Marshaler]()) {
		return []string{path}
	}
	var paths []string
	for f := range of.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		paths = append(paths, policyFields(strings.TrimPrefix(path+"."+name, "."), f.Type)...)
	}
	return paths
}

func TestEveryFieldOfAReleasePolicyIsDocumented(t *testing.T) {
	t.Parallel()
	const name = "docs/release-policy.md"
	text := read(t, name).text
	for _, path := range policyFields("", reflect.TypeFor[v1alpha1.PolicySpec]()) {
		last := path[strings.LastIndexByte(path, '.')+1:]
		if !regexp.MustCompile(`(?m)(^|[^a-zA-Z])` + last + `(\b)`).MatchString(text) {
			t.Errorf("%s does not name spec.%s", name, path)
		}
	}
}

func TestEveryMarkOfAnObjectIsDocumented(t *testing.T) {
	t.Parallel()
	text := read(t, "docs/release-policy.md").text
	for _, mark := range []string{
		object.PhaseAnnotation, object.PruneAnnotation, object.AdoptAnnotation, object.RecreateAnnotation, object.DriftAnnotation, object.IgnoreFieldsAnnotation,
	} {
		if !strings.Contains(text, "| `"+mark) {
			t.Errorf("%s is not explained", mark)
		}
	}
}
