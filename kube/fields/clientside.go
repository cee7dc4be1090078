package fields

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/csaupgrade"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// ClientSide finds the managers that applied an object client-side, as kubectl apply does.
func ClientSide(live *unstructured.Unstructured) []string {
	mark := fieldpath.NewSet(fieldpath.MakePathOrDie("metadata", "annotations", LastApplied))
	var names []string
	for _, e := range csaupgrade.FindFieldsOwners(live.GetManagedFields(), metav1.ManagedFieldsOperationUpdate, mark) {
		names = append(names, e.Manager)
	}
	return names
}

// WithoutOurs is the managed fields of an object in which nobody who applied it client-side claims a field of ours; nil if it is so already.
func WithoutOurs(live *unstructured.Unstructured) ([]metav1.ManagedFieldsEntry, error) {
	names := ClientSide(live)
	if len(names) == 0 {
		return nil, nil
	}
	ours, err := Owned(live)
	if err != nil {
		return nil, err
	}
	var entries []metav1.ManagedFieldsEntry
	changed := false
	for _, e := range live.GetManagedFields() {
		if e.Operation == metav1.ManagedFieldsOperationUpdate && e.Subresource == "" && slices.Contains(names, e.Manager) {
			set, err := EntrySet(e)
			if err != nil {
				return nil, err
			}
			rest := set.Difference(ours)
			changed = changed || rest.Size() < set.Size()
			raw, err := rest.ToJSON()
			if err != nil {
				return nil, err
			}
			e.FieldsV1 = metav1.NewFieldsV1(string(raw))
		}
		entries = append(entries, e)
	}
	if !changed {
		return nil, nil
	}
	return entries, nil
}
