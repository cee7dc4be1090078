package scan

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/render/internal/manifest"
	"github.com/nexus-platform/reconciler/render/internal/wire"
)

// entries are the objects of a file, lists written out. It returns errEnough where there are too many in all.
func (s *Scan) entries(file string, keepNodes bool) ([]entry, error) {
	known, ok := s.parsed[file]
	if !ok {
		docs, err := s.files.Documents(file)
		if err != nil {
			s.found(err)
			return nil, enough(err)
		}
		for _, d := range docs {
			known = s.flatten(file, d.Root, known)
		}
		if !keepNodes {
			s.parsed[file] = known // without the nodes: they are many times the file
			for i := range known {
				known[i].node = nil
			}
		}
	}
	if s.objects += len(known); s.objects > s.limits.Objects {
		limit := wire.TooManyObjects(s.limits)
		limit.File = file
		s.found(limit)
		return nil, errEnough
	}
	return known, nil
}

// flatten adds an object, or those of a list in any depth: the depth of the file bounds the recursion, its size the number.
func (s *Scan) flatten(file string, n *yaml.Node, into []entry) []entry {
	if items := manifest.Items(n); items != nil {
		for _, item := range items {
			into = s.flatten(file, item, into)
		}
		return into
	}
	wrong := func(reason string) []entry {
		s.found(&wire.ManifestError{File: file, Line: n.Line, Reason: reason})
		return into
	}
	o := manifest.ObjectOf(n)
	switch {
	case n.Kind != yaml.MappingNode:
		return wrong("is not a Kubernetes object")
	case o.Kind == "":
		return wrong("has no kind")
	case o.APIVersion == "":
		return wrong(o.Kind + " has no apiVersion")
	case o.Name == "" && manifest.Text(manifest.Field(manifest.Field(n, "metadata"), "generateName")) != "":
		return wrong(o.Kind + " has a generateName; write a name, so that the object can be found again")
	case o.Name == "":
		return wrong(o.Kind + " has no metadata.name")
	}
	if o.Kind == "Secret" {
		for _, field := range []string{"data", "stringData"} {
			if values := manifest.Field(n, field); values != nil {
				manifest.Leaves(values, s.files.Secrets.Add)
			}
		}
	}
	return append(into, entry{Object: o, line: n.Line, node: n})
}

// resources vets a file of objects, and tells origins where they come from.
func (s *Scan) resources(file string, at place) error {
	entries, err := s.entries(file, false)
	s.Parts.file(file, entries)
	for _, e := range entries {
		s.Origins.add(e.Object, at, object.Origin{Path: file, Line: e.line})
	}
	return err
}

// pluginFile vets a file of plugin configurations, whose paths are relative to dir.
func (s *Scan) pluginFile(file, dir string) error {
	entries, err := s.entries(file, true)
	for _, e := range entries {
		s.plugin(file, dir, e)
	}
	return err
}

// The annotations that make a configuration a function, which kustomize would run as a program or container.
var functionAnnotations = []string{"config.kubernetes.io/function", "config.k8s.io/function"}

// plugin refuses what would run a program, and follows what a builtin refers to.
func (s *Scan) plugin(file, dir string, e entry) {
	for _, key := range functionAnnotations {
		if _, ok := e.Annotations[key]; ok {
			s.found(&wire.PluginError{File: file, Plugin: e.Kind, Why: fmt.Sprintf("is a function (annotation %s), which would run a program or container; none is run", key)})
			return
		}
	}
	if e.APIVersion != "builtin" {
		s.found(&wire.PluginError{File: file, Plugin: e.Kind, Why: fmt.Sprintf("(apiVersion %.100q) is no builtin of kustomize; exec, Go and container plugins are not run", e.APIVersion)})
		return
	}
	if e.Kind == "HelmChartInflationGenerator" {
		s.found(&wire.PluginError{File: file, Plugin: "helm", Why: "would run a program and fetch charts; render the chart into the repository (helm template) and refer to the files"})
		return
	}
	for _, ref := range pluginReferences(e.Kind, e.node) {
		// None of these fields leads to a kustomization, so nothing is left to end the scan for.
		s.reference(file, dir, ref, place{}, dir) //nolint:errcheck // found already
	}
}
