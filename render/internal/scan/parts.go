package scan

import (
	"reflect"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"
)

// Parts knows whether the objects of an overlay can be built in parts, some files at a time. kustomize's cost grows with the
// square of the objects, mostly since it compares each new one with all before, so many small builds are cheaper than one.
//
// The parts together are what one build gives if kustomize changes each object by itself. What looks at others
// is the repair of references to renamed objects, which needs objects that were renamed (or moved to another
// namespace), and fields such as patches and replacements that name their target. Without them the only objects that others
// refer to under a new name are those of generators, and generators run in every part.
type Parts struct {
	Files     []FileOfObjects // in the order in which they are reached
	Generates bool            // there are generators

	together bool // an object may depend on one of another file
	known    map[string]bool
	others   map[string]bool // files that are read as something else than objects
}

// FileOfObjects is a file and the number of objects in it.
type FileOfObjects struct {
	Path    string
	Objects int
}

// Separable reports whether the files can be built apart.
func (p *Parts) Separable() bool {
	if p.together {
		return false
	}
	for _, f := range p.Files {
		if p.others[f.Path] {
			return false // as a generator's input it must stay whole
		}
	}
	return true
}

// kustomization looks for fields that make objects depend on each other.
func (p *Parts) kustomization(k *types.Kustomization) {
	p.Generates = p.Generates || len(k.ConfigMapGenerator)+len(k.SecretGenerator) > 0
	rest := *k
	rest.TypeMeta, rest.MetaData, rest.Resources, rest.Bases = types.TypeMeta{}, nil, nil, nil //nolint:staticcheck // deprecated, but kustomize still follows it
	rest.ConfigMapGenerator, rest.SecretGenerator, rest.GeneratorOptions = nil, nil, nil
	rest.Labels, rest.CommonLabels, rest.CommonAnnotations, rest.Images = nil, nil, nil, nil //nolint:staticcheck // as above
	p.together = p.together || !reflect.DeepEqual(rest, types.Kustomization{})
}

// file remembers a file of objects.
func (p *Parts) file(path string, entries []entry) {
	if p.known[path] {
		return
	}
	if p.known == nil {
		p.known = make(map[string]bool)
	}
	p.known[path] = true
	p.Files = append(p.Files, FileOfObjects{path, len(entries)})
	for _, e := range entries {
		for key := range e.Annotations {
			// kustomize takes the first for its own note that the object was renamed; the second is
			// dropped only after it was compared with all others.
			p.together = p.together || strings.HasPrefix(key, konfig.ConfigAnnoDomain) || key == konfig.IgnoredByKustomizeAnnotation
		}
	}
}

// reads remembers a file that is read as something else than objects.
func (p *Parts) reads(path string) {
	if p.others == nil {
		p.others = make(map[string]bool)
	}
	p.others[path] = true
}
