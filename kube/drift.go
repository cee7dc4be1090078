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
	Verb      string    // edited, unlabelled or replaced (deleted and made again by somebody else)
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
	report := &DriftReport{Ref: rec.Ref, Verb: "edited", Manager: fields.Unknown, Fields: changes}
	if len(changes) > 0 {
		newest := slices.MaxFunc(changes, func(a, b fields.Drifted) int { return a.At.Compare(b.At) })
		report.Manager, report.Operation, report.At = newest.Manager, newest.Operation, newest.At
	}
	switch {
	case live.Unlabelled:
		report.Verb = "unlabelled"
	case len(changes) == 0:
		return nil, nil
	}
	return report, nil
}
