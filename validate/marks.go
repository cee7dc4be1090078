package validate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nexus-platform/reconciler/object"
)

const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// clientSet looks for fields that the server sets, not the author.
func (r *run) clientSet(o object.Object) {
	meta := at[map[string]any](o, "metadata")
	for _, field := range []string{"deletionGracePeriodSeconds", "deletionTimestamp", "ownerReferences", "resourceVersion", "uid"} {
		if !empty(meta[field]) {
			r.refuse(o, "server-field", "metadata."+field, "belongs to the cluster that the object was copied from", "remove it")
		}
	}
	for _, field := range []string{"creationTimestamp", "generation", "managedFields", "selfLink"} {
		if !empty(meta[field]) {
			r.warn(o, "server-field", "metadata."+field, "is set by the server, and not applied", "remove it")
		}
	}
	if !empty(o.Body.Object["status"]) {
		r.warn(o, "server-field", "status", "is written by controllers, and not applied", "remove it")
	}
	if _, has := at[map[string]any](o, "metadata", "annotations")[lastApplied]; has {
		r.warn(o, "server-field", "metadata.annotations["+lastApplied+"]",
			"holds a copy of the object, secrets included", "remove it")
	}
	for _, f := range o.Body.GetFinalizers() {
		if f == "foregroundDeletion" || f == "orphan" || strings.HasPrefix(f, "kubernetes.io/") {
			continue
		}
		r.warn(o, "finalizer", "metadata.finalizers", fmt.Sprintf("%q keeps the object from being deleted until somebody takes it away", f),
			"remove it, unless a controller in the cluster serves it")
	}
}

// empty reports a value that says nothing, such as the status: {} and creationTimestamp: null that kubectl writes.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		for _, e := range v {
			if !empty(e) {
				return false
			}
		}
		return true
	}
	return false
}

// markValues are the annotations that people may write, with the values that they may have; nil: checked elsewhere.
var markValues = map[string][]string{
	object.PhaseAnnotation:        nil,
	object.PruneAnnotation:        {"before", "allow", "never"},
	object.AdoptAnnotation:        {"true", "false"},
	object.RecreateAnnotation:     {"true", "false"},
	object.DriftAnnotation:        {"heal", "report", "ignore"},
	object.IgnoreFieldsAnnotation: nil,
}

// marks checks the labels and annotations under our domain.
func (r *run) marks(o object.Object) {
	labels := o.Body.GetLabels()
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		field := "metadata.labels[" + key + "]"
		switch {
		case key == object.EnvironmentLabel:
			r.refuse(o, "reserved-mark", field, "is set by the reconciler alone", "remove it")
		case strings.HasPrefix(key, object.Domain):
			r.warn(o, "unknown-mark", field, "is no label that the reconciler knows", "it may be meant as an annotation")
		}
	}
	annotations := o.Body.GetAnnotations()
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		field, value := "metadata.annotations["+key+"]", annotations[key]
		allowed, known := markValues[key]
		switch {
		case key == object.BornAnnotation:
			r.refuse(o, "reserved-mark", field, "is set by the reconciler alone", "remove it")
		case strings.HasPrefix(key, object.Domain) && !known:
			r.warn(o, "unknown-mark", field, "is no annotation that the reconciler knows", "write one of "+strings.Join(slices.Sorted(maps.Keys(markValues)), ", "))
		case key == object.IgnoreFieldsAnnotation:
			for _, pointer := range strings.Split(value, ",") {
				if !strings.HasPrefix(strings.TrimSpace(pointer), "/") {
					r.refuse(o, "mark-value", field, fmt.Sprintf("%q is not a JSON pointer", strings.TrimSpace(pointer)), "write it as in /spec/replicas")
				}
			}
		case allowed != nil && !slices.Contains(allowed, value):
			r.refuse(o, "mark-value", field, fmt.Sprintf("%q is not one of its values", value), "write one of "+strings.Join(allowed, ", "))
		}
	}
}
