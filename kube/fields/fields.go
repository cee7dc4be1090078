// Package fields compares two states of one object, field by field, as far as fields are owned, and masks what must not be shown.
package fields

import (
	"bytes"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/nexus-platform/reconciler/object"
)

// ourMarks are the fields that stand outside the digests.
func ourMarks() *fieldpath.Set {
	return fieldpath.NewSet(
		fieldpath.MakePathOrDie("metadata", "labels", object.EnvironmentLabel),
		fieldpath.MakePathOrDie("metadata", "annotations", object.BornAnnotation),
	)
}

// IsOurs reports the entry of managedFields that our applies own.
func IsOurs(e metav1.ManagedFieldsEntry) bool {
	return e.Manager == object.FieldManager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == ""
}

// Owned returns the fields that our applies own in a live object, without our marks; empty if none.
func Owned(live *unstructured.Unstructured) (*fieldpath.Set, error) {
	for _, e := range live.GetManagedFields() {
		if IsOurs(e) {
			set, err := EntrySet(e)
			if err != nil {
				return nil, err
			}
			return set.Difference(ourMarks()), nil
		}
	}
	return fieldpath.NewSet(), nil
}

// EntrySet reads the field set of one manager.
func EntrySet(e metav1.ManagedFieldsEntry) (*fieldpath.Set, error) {
	set := fieldpath.NewSet()
	if e.FieldsV1 == nil {
		return set, nil
	}
	if err := set.FromJSON(e.FieldsV1.GetRawReader()); err != nil {
		return nil, fmt.Errorf("read the managed fields of %s: %w", e.Manager, err)
	}
	return set, nil
}

// Fingerprint is a field set (FieldsV1 JSON) by which to see whether an object is still what was planned, and its digest: the fields
// of our applies, or all that anybody manages where there are none.
func Fingerprint(live *unstructured.Unstructured) (set []byte, digest string, err error) {
	fields, err := Owned(live)
	if err != nil {
		return nil, "", err
	}
	if fields.Empty() {
		for _, e := range live.GetManagedFields() {
			theirs, err := EntrySet(e)
			if err != nil {
				return nil, "", err
			}
			if e.Subresource != "status" {
				fields = fields.Union(theirs)
			}
		}
	}
	if set, err = fields.ToJSON(); err != nil {
		return nil, "", fmt.Errorf("write a field set: %w", err)
	}
	digest, err = Digest(live, set)
	return set, digest, err
}

func parseFields(fields []byte) (*fieldpath.Set, error) {
	set := fieldpath.NewSet()
	if len(fields) == 0 {
		return set, nil
	}
	if err := set.FromJSON(bytes.NewReader(fields)); err != nil {
		return nil, fmt.Errorf("read a field set: %w", err)
	}
	return set, nil
}

// Digest is the digest of a live object over a field set (FieldsV1 JSON, as in
// object.Record). Neither the status nor our marks nor what others own change it. Without fields it covers
// all that people declared of the object.
func Digest(live *unstructured.Unstructured, fields []byte) (string, error) {
	if len(fields) == 0 {
		return object.Digest(content(live))
	}
	set, err := parseFields(fields)
	if err != nil {
		return "", err
	}
	ours, err := Owned(live)
	if err != nil {
		return "", err
	}
	return object.Digest(restrict(live.Object, set, ours))
}

// Record makes the inventory's record of an object as an apply of ours left it.
func Record(live *unstructured.Unstructured) (object.Record, error) {
	set, err := Owned(live)
	if err != nil {
		return object.Record{}, err
	}
	rec := object.Record{Ref: object.RefOf(live), Version: live.GroupVersionKind().Version, UID: live.GetUID()}
	if rec.Fields, err = set.ToJSON(); err != nil {
		return object.Record{}, fmt.Errorf("write a field set: %w", err)
	}
	rec.Live, err = object.Digest(restrict(live.Object, set, set))
	return rec, err
}

// restrict keeps of v what set names. Maps are keyed by path elements, so that the order of
// associative lists, which is not a field, does not count.
//
// A map that is owned as a whole is either atomic or was applied empty, and then others may fill it
// (emptyDir: {} gets a default inside). So as long as we own it (ours), nobody changed what is ours, and its value is not looked at.
func restrict(v any, set, ours *fieldpath.Set) any {
	kept := map[string]any{}
	for element := range set.Children.All() {
		inner, ok := pick(v, element)
		if !ok {
			continue
		}
		child, _ := set.Children.Get(element)
		kept[element.String()] = restrict(inner, child, descend(ours, element))
	}
	for element := range set.Members.All() {
		if _, deeper := set.Children.Get(element); deeper {
			continue
		}
		inner, ok := pick(v, element)
		if !ok {
			continue
		}
		if _, isMap := inner.(map[string]any); isMap && ours != nil && ours.Members.Has(element) {
			inner = map[string]any{}
		}
		kept[element.String()] = inner
	}
	return kept
}

func descend(set *fieldpath.Set, element fieldpath.PathElement) *fieldpath.Set {
	if set == nil {
		return nil
	}
	child, ok := set.Children.Get(element)
	if !ok {
		return nil
	}
	return child
}

// pick finds the value that one path element names inside v.
func pick(v any, element fieldpath.PathElement) (any, bool) {
	if element.FieldName != nil {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		inner, ok := m[*element.FieldName]
		return inner, ok && inner != nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, false
	}
	if element.Index != nil {
		if *element.Index < 0 || *element.Index >= len(list) {
			return nil, false
		}
		return list[*element.Index], true
	}
	for _, item := range list {
		if names(element, item) {
			return item, true
		}
	}
	return nil, false
}

// names reports that a key or value element means this item of a list. A rendered item may leave out key fields
// that the API server fills in (protocol: TCP).
func names(element fieldpath.PathElement, item any) bool {
	if element.Value != nil {
		return value.Equals(*element.Value, value.NewValueInterface(item))
	}
	m, ok := item.(map[string]any)
	if !ok || element.Key == nil {
		return false
	}
	found := false
	for _, f := range *element.Key {
		v, has := m[f.Name]
		if has && !value.Equals(f.Value, value.NewValueInterface(v)) {
			return false
		}
		found = found || has
	}
	return found
}
