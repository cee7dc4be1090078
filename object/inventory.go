package object

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// Record is what the inventory remembers of one owned object (design 3.3). With its
// two digests neither a pass with nothing new nor a restart needs a request per object.
type Record struct {
	Ref     Ref       `json:"ref"`
	Version string    `json:"version"` // API version without the group; the one applied is the one watched
	UID     types.UID `json:"uid"`
	// Rendered is the Digest of the rendered object; the same digest means that Git did not change it.
	Rendered string `json:"rendered"`
	// Live is the digest of the fields in Fields as the server normalised them after the last apply.
	Live string `json:"live"`
	// Fields is the field set of the last apply (FieldsV1 JSON). It is kept because an edit by
	// somebody else takes the field out of the live managedFields.
	Fields []byte `json:"fields,omitempty"`
	Phase  Phase  `json:"phase,omitempty"`
}

// Inventory is all that an environment owns, in order of Ref.
type Inventory []Record

// Sorted orders a copy by Ref.
func (inv Inventory) Sorted() Inventory {
	out := slices.Clone(inv)
	slices.SortFunc(out, func(a, b Record) int { return a.Ref.Compare(b.Ref) })
	return out
}

// ByRef makes an index of the records.
func (inv Inventory) ByRef() map[Ref]Record {
	m := make(map[Ref]Record, len(inv))
	for _, r := range inv {
		m[r.Ref] = r
	}
	return m
}

// Union holds every record of inv and those of other that inv has not: while a
// release is open, both worlds are owned (protocol rule 1).
func (inv Inventory) Union(other Inventory) Inventory {
	have := inv.ByRef()
	out := slices.Clone(inv)
	for _, r := range other {
		if _, ok := have[r.Ref]; !ok {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Record) int { return a.Ref.Compare(b.Ref) })
	return out
}
