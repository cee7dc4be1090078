package typed

import (
	"fmt"
	"maps"
	"slices"

	"sigs.k8s.io/structured-merge-diff/v6/schema"
)

// pruner removes the fields that a schema does not have. The type converter stops at the
// first of them in every map, in random order, so they have to be out of its way.
type pruner struct {
	schema  *schema.Schema
	unknown []string
}

func (p *pruner) prune(v any, is schema.TypeRef, path string) {
	atom, ok := p.schema.Resolve(is)
	if !ok {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		if atom.Map == nil {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			field, known := atom.Map.FindField(name)
			switch {
			case known:
				p.prune(v[name], field.Type, child(path, name))
			case atom.Map.ElementType != schema.TypeRef{}:
				p.prune(v[name], atom.Map.ElementType, fmt.Sprintf("%s[%s]", path, name))
			default:
				p.unknown = append(p.unknown, child(path, name))
				delete(v, name)
			}
		}
	case []any:
		if atom.List == nil {
			return
		}
		for i, e := range v {
			p.prune(e, atom.List.ElementType, fmt.Sprintf("%s[%d]", path, i))
		}
	}
}

func child(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
