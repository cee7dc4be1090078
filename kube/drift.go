package kube

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nexus-platform/reconciler/kube/fields"
	"github.com/nexus-platform/reconciler/object"
)

// DriftReport says how an object differs from what was applied, and who did it.
type DriftReport struct {
	Ref       object.Ref
	Verb      string    // edited, or replaced: deleted and made again by somebody else
	Manager   string    // of the newest change, or "unknown"
	Operation string    // Apply or Update, with the subresource: Update/scale; empty if unknown
	At        time.Time // of the newest change; zero if unknown
	Fields    []fields.Drifted
}

// Drift compares a live object with the record of its last apply. want is the rendered object, which knows
// the values that were applied; ignore lists JSON pointers of fields that belong to others. It returns nil if nothing of ours changed.
func (c *Cluster) Drift(live *Live, rec object.Record, want *unstructured.Unstructured, ignore []string) (*DriftReport, error) {
	now := live.Object()
	if rec.UID != "" && live.UID != rec.UID {
		report := &DriftReport{Ref: rec.Ref, Verb: "replaced", Manager: fields.Unknown}
		if entries := now.GetManagedFields(); len(entries) > 0 {
			report.Manager, report.Operation, report.At = fields.Author(entries[len(entries)-1])
		}
		return report, nil
	}
	changes, err := fields.Drift(now, rec, want, ignore)
	if err != nil {
		return nil, err
	}
	if len(changes) == 0 {
		return nil, nil
	}
	newest := slices.MaxFunc(changes, func(a, b fields.Drifted) int { return a.At.Compare(b.At) })
	return &DriftReport{
		Ref: rec.Ref, Verb: "edited", Manager: newest.Manager, Operation: newest.Operation, At: newest.At, Fields: changes,
	}, nil
}
