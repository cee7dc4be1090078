package fields

import (
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/nexus-platform/reconciler/object"
)

// Unknown is the manager of a change whose author left no trace.
const Unknown = "unknown"

// Drifted is one field of ours that is no longer as it was applied.
type Drifted struct {
	Change           // Old is what was applied, New what is there
	Manager   string // who owns the field now, or Unknown
	Operation string // Apply or Update, with the subresource: Update/scale; empty if unknown
	At        time.Time
}

// Drift finds the fields of the last apply (rec) that a live object does not have as they were. want is the rendered object,
// which knows the values; ignore lists JSON pointers of fields that belong to others. Nothing is found where the digest is that of the record.
//
// Whoever changes or removes a field of ours takes it out of our managed fields; so
// these are looked at, and all that we applied only where that tells nothing.
func Drift(now *unstructured.Unstructured, rec object.Record, want *unstructured.Unstructured, ignore []string) ([]Drifted, error) {
	digest, err := Digest(now, rec.Fields)
	if err != nil {
		return nil, err
	}
	applied, err := parseFields(rec.Fields)
	if err != nil {
		return nil, err
	}
	ours, err := Owned(now)
	if err != nil {
		return nil, err
	}
	// What is ours and not of the last apply is of an apply that came late, or of a release that was not finished.
	extra := ours.Difference(applied)
	if rec.Live == "" || len(rec.Fields) == 0 {
		extra = fieldpath.NewSet()
	}
	if digest == rec.Live && extra.Empty() {
		return nil, nil
	}
	lost := applied.Difference(ours)
	author := Unknown
	if lost.Empty() && digest != rec.Live {
		lost, author = applied, object.FieldManager // nobody else owns what changed
	}
	if !extra.Empty() {
		lost, author = lost.Union(extra), object.FieldManager
	}
	foreign := pointerPaths(want, now, ignore)
	var out []Drifted
	for path := range lost.Leaves().All() {
		if covered(foreign, path) {
			continue
		}
		was, had := valueAt(want.Object, path)
		is, has := valueAt(now.Object, path)
		f := Drifted{Manager: author}
		d := differ{kind: rec.Ref.GroupKind()}
		steps := stepsOf(path)
		switch {
		case !had && !has:
			continue
		case had && has:
			d.walk(steps, was, is)
		case had:
			d.walk(steps, was, nil)
		default:
			d.walk(steps, nil, is)
		}
		if m, op, at := changedBy(now, path); m != Unknown {
			f.Manager, f.Operation, f.At = m, op, at
		}
		for _, change := range d.changes {
			f.Change = change
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, func(a, b Drifted) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// changedBy finds who owns a field now: the newest of its managers that is not us.
func changedBy(now *unstructured.Unstructured, path fieldpath.Path) (manager, operation string, at time.Time) {
	manager = Unknown
	for _, e := range now.GetManagedFields() {
		if IsOurs(e) {
			continue
		}
		set, err := EntrySet(e)
		if err != nil || !holds(set, path) {
			continue
		}
		if m, op, t := Author(e); manager == Unknown || t.After(at) {
			manager, operation, at = m, op, t
		}
	}
	return manager, operation, at
}

// Author reads who wrote an entry of managed fields, how and when.
func Author(e metav1.ManagedFieldsEntry) (manager, operation string, at time.Time) {
	operation = string(e.Operation)
	if e.Subresource != "" {
		operation += "/" + e.Subresource
	}
	if e.Time != nil {
		at = e.Time.Time
	}
	return e.Manager, operation, at
}

// holds reports that a set has a path, a field above it that is owned as a whole, or a field below it.
func holds(set *fieldpath.Set, path fieldpath.Path) bool {
	for _, element := range path {
		child, deeper := set.Children.Get(element)
		if !deeper {
			return set.Members.Has(element)
		}
		set = child
	}
	return true
}

// valueAt finds the value that a path names.
func valueAt(v any, path fieldpath.Path) (any, bool) {
	for _, element := range path {
		inner, ok := pick(v, element)
		if !ok {
			return nil, false
		}
		v = inner
	}
	return v, true
}

// stepsOf writes a path of managed fields as a diff does.
func stepsOf(path fieldpath.Path) []step {
	steps := make([]step, 0, len(path))
	for _, element := range path {
		switch {
		case element.FieldName != nil:
			steps = append(steps, step{name: *element.FieldName})
		case element.Key != nil:
			var parts []string
			s := step{}
			for _, f := range *element.Key {
				v := scalar(f.Value.Unstructured())
				if f.Name == "name" || f.Name == "key" {
					s.key = v
				}
				parts = append(parts, f.Name+"="+v)
			}
			s.item = "[" + strings.Join(parts, ",") + "]"
			steps = append(steps, s)
		default:
			steps = append(steps, step{item: "[" + strings.Trim(element.String(), "[]") + "]"})
		}
	}
	return steps
}
