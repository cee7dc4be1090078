package fields

import (
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Strip prepares body for an apply to live so that fields which belong to somebody else, named by JSON pointers,
// keep their live value: they are applied with it until another manager owns them, and left out from then on. Where live is nil the body's own values begin.
// Neither argument is changed.
func Strip(body *unstructured.Unstructured, pointers []string, live *unstructured.Unstructured) *unstructured.Unstructured {
	if len(pointers) == 0 || live == nil {
		return body
	}
	out := body.DeepCopy()
	for _, pointer := range pointers {
		path, ok := pointerPath(out, live, pointer)
		if !ok {
			continue // the body does not set it
		}
		now, there := valueAt(live.Object, path)
		if !there || othersOwn(live, path) {
			setAt(out.Object, path, nil)
		} else {
			setAt(out.Object, path, now)
		}
	}
	return out
}

// othersOwn reports that a manager beside us keeps exactly this field in the object: then
// it stays there when we leave it out.
func othersOwn(live *unstructured.Unstructured, path fieldpath.Path) bool {
	for _, e := range live.GetManagedFields() {
		if IsOurs(e) || e.Subresource == "status" {
			continue
		}
		set, err := EntrySet(e)
		if err != nil {
			continue
		}
		parent, last := set, path[len(path)-1]
		for _, element := range path[:len(path)-1] {
			if parent = descend(parent, element); parent == nil {
				break
			}
		}
		if parent == nil {
			continue
		}
		if _, deeper := parent.Children.Get(last); deeper || parent.Members.Has(last) {
			return true
		}
	}
	return false
}

// setAt puts a copy of v at a path of body, or takes the field away if v is nil. The path exists in body.
func setAt(body any, path fieldpath.Path, v any) {
	parent, _ := valueAt(body, path[:len(path)-1])
	last := path[len(path)-1]
	if m, ok := parent.(map[string]any); ok && last.FieldName != nil {
		if v == nil {
			delete(m, *last.FieldName)
		} else {
			m[*last.FieldName] = v
		}
	}
}

// pointerPaths turns JSON pointers into paths; those that name nothing are left out.
func pointerPaths(body, live *unstructured.Unstructured, pointers []string) []fieldpath.Path {
	var paths []fieldpath.Path
	for _, p := range pointers {
		if path, ok := pointerPath(body, live, p); ok {
			paths = append(paths, path)
		} else if path, ok := pointerPath(live, live, p); ok {
			paths = append(paths, path)
		}
	}
	return paths
}

// covered reports that a path is one of paths or below one.
func covered(paths []fieldpath.Path, path fieldpath.Path) bool {
	return slices.ContainsFunc(paths, func(p fieldpath.Path) bool { return len(p) <= len(path) && p.Equals(path[:len(p)]) })
}

// pointerPath finds in body what a JSON pointer names, and writes it as managed fields do. An index into a
// list whose items have names means that item, wherever live has it.
func pointerPath(body, live *unstructured.Unstructured, pointer string) (fieldpath.Path, bool) {
	var path fieldpath.Path
	var v any = body.Object
	for _, token := range strings.Split(strings.TrimPrefix(pointer, "/"), "/") {
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		switch at := v.(type) {
		case map[string]any:
			inner, ok := at[token]
			if !ok {
				return nil, false
			}
			path, v = append(path, fieldpath.FieldNameElement(token)), inner
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(at) {
				return nil, false
			}
			path, v = append(path, itemElement(live, path, at, i)), at[i]
		default:
			return nil, false
		}
	}
	return path, len(path) > 0
}

// itemElement names an item of a list as the managed fields of live do, or by its index.
func itemElement(live *unstructured.Unstructured, path fieldpath.Path, list []any, i int) fieldpath.PathElement {
	for _, e := range live.GetManagedFields() {
		set, err := EntrySet(e)
		if err != nil {
			continue
		}
		for _, element := range path {
			if set = descend(set, element); set == nil {
				break
			}
		}
		if set == nil {
			continue
		}
		for element := range set.Children.All() {
			if names(element, list[i]) {
				return element
			}
		}
	}
	return fieldpath.IndexElement(i)
}
