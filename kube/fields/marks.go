package fields

import (
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nexus-platform/reconciler/object"
)

// bookkeeping is what the API server writes into metadata.
var bookkeeping = []string{
	"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds",
}

// content is what people declared of an object: no status, no bookkeeping, none of our marks. The result shares what it can with u.
func content(u *unstructured.Unstructured) any {
	if u == nil {
		return nil
	}
	top := maps.Clone(u.Object)
	delete(top, "status")
	meta, _ := top["metadata"].(map[string]any)
	meta = maps.Clone(meta)
	for _, f := range bookkeeping {
		delete(meta, f)
	}
	strike(meta, "labels", object.EnvironmentLabel)
	strike(meta, "annotations", object.BornAnnotation)
	top["metadata"] = meta
	return top
}

// strike removes one key of a map inside m, and the map if it is empty then.
func strike(m map[string]any, field, key string) {
	inner, ok := m[field].(map[string]any)
	if !ok {
		return
	}
	inner = maps.Clone(inner)
	delete(inner, key)
	if m[field] = inner; len(inner) == 0 {
		delete(m, field)
	}
}

// Dress returns a shallow copy of body with our marks and without what the API server writes.
func Dress(body *unstructured.Unstructured, environment types.UID, born string) *unstructured.Unstructured {
	top := maps.Clone(body.Object)
	delete(top, "status")
	meta, _ := top["metadata"].(map[string]any)
	meta = maps.Clone(meta)
	for _, f := range bookkeeping {
		delete(meta, f)
	}
	put(meta, "labels", object.EnvironmentLabel, string(environment))
	if born != "" {
		put(meta, "annotations", object.BornAnnotation, born)
	}
	top["metadata"] = meta
	return &unstructured.Unstructured{Object: top}
}

// put sets one key of a map inside m, of which it makes a copy.
func put(m map[string]any, field, key, v string) {
	inner, _ := m[field].(map[string]any)
	inner = maps.Clone(inner)
	if inner == nil {
		inner = map[string]any{}
	}
	inner[key] = v
	m[field] = inner
}
