package scan

import (
	"testing"

	"github.com/nexus-platform/reconciler/render/internal/source"
	"github.com/nexus-platform/reconciler/render/internal/wire"
)

func TestFilesAreBuiltApartOnlyWhereKustomizeChangesEachObjectByItself(t *testing.T) {
	for lines, separable := range map[string]bool{
		"": true,
		"kind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\n": true,
		"labels: [{pairs: {a: b}, includeSelectors: true}]\n":             true,
		"commonLabels: {a: b}\n":                                          true,
		"commonAnnotations: {a: b}\n":                                     true,
		"images: [{name: a, newName: b}]\n":                               true,
		"configMapGenerator: [{name: x, literals: [a=b]}]\n":              true,
		"secretGenerator: [{name: x, files: [data]}]\n":                   true,
		"metadata: {name: x}\n":                                           true,

		"configMapGenerator: [{name: x, files: [cm.yaml]}]\n": false,
		"namespace: x\n":                     false,
		"namePrefix: x\n":                    false,
		"nameSuffix: x\n":                    false,
		"patches: [{path: cm.yaml}]\n":       false,
		"patchesStrategicMerge: [cm.yaml]\n": false,
		"patchesJson6902: [{patch: '[]', target: {kind: X}}]\n":                                      false,
		"replacements: [{path: cm.yaml}]\n":                                                          false,
		"replicas: [{name: x, count: 3}]\n":                                                          false,
		"vars: [{name: X, objref: {kind: ConfigMap, name: cm, apiVersion: v1}}]\n":                   false,
		"sortOptions: {order: fifo}\n":                                                               false,
		"configurations: [cm.yaml]\n":                                                                false,
		"crds: [cm.yaml]\n":                                                                          false,
		"openapi: {path: cm.yaml}\n":                                                                 false,
		"buildMetadata: [originAnnotations]\n":                                                       false,
		"components: [../component]\n":                                                               false,
		"transformers: ['{apiVersion: builtin, kind: HashTransformer, metadata: {name: x}}']\n":      false,
		"generators: ['{apiVersion: builtin, kind: ConfigMapGenerator, metadata: {name: x}}']\n":     false,
		"validators: ['{apiVersion: builtin, kind: AnnotationsTransformer, metadata: {name: x}}']\n": false,
	} {
		t.Run(lines, func(t *testing.T) {
			for where, files := range map[string]tree{
				"overlay": {"app/kustomization.yaml": lines + "resources: [cm.yaml]\n"},
				"base":    {"app/kustomization.yaml": "resources: [../base]\n", "base/kustomization.yaml": lines + "resources: [cm.yaml]\n", "base/cm.yaml": configMap("cm"), "base/data": "x"},
			} {
				if where == "base" && len(lines) > 5 && lines[:5] == "kind:" {
					continue
				}
				files["app/cm.yaml"], files["app/data"] = configMap("cm"), "x"
				files["component/kustomization.yaml"] = "kind: Component\nresources: [x.yaml]\n"
				files["component/x.yaml"] = configMap("x")
				limits := wire.DefaultLimits()
				s := New(source.New(files, nil, limits), limits)
				if err := s.Overlay("app"); err != nil {
					t.Fatal(err)
				}
				if got := s.Parts.Separable(); got != separable {
					t.Errorf("in the %s: %v", where, got)
				}
			}
		})
	}
}
