package reconcile

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/object"
)

// arrivals are the namespaces and kinds that come with a set: what is in them, or of them, the API server can judge only when they are there.
type arrivals struct {
	namespaces map[string]bool
	kinds      map[schema.GroupKind]bool
	defined    map[schema.GroupKind]bool // by the set, whether or not the definition is there already
}

// arrivals looks which namespaces and definitions of a set are not in the cluster, or on their way out of it.
func (r *Reconciler) arrivals(ctx context.Context, set *object.Set) (arrivals, error) {
	a := arrivals{namespaces: map[string]bool{}, kinds: map[schema.GroupKind]bool{}, defined: map[schema.GroupKind]bool{}}
	for _, o := range set.Objects {
		if o.Ref.Kind != "Namespace" && o.Ref.Kind != "CustomResourceDefinition" {
			continue
		}
		here, err := r.stays(ctx, o)
		if err != nil {
			return a, fmt.Errorf("look for %s: %w", o.Ref, err)
		}
		if o.Ref.Kind == "Namespace" {
			a.namespaces[o.Ref.Name] = !here
			continue
		}
		gk := defines(o)
		a.defined[gk], a.kinds[gk] = true, !here
	}
	return a, nil
}

// defines is the kind that a definition is of; of any other object it is none.
func defines(o object.Object) schema.GroupKind {
	group, _, _ := unstructured.NestedString(o.Body.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(o.Body.Object, "spec", "names", "kind")
	return schema.GroupKind{Group: group, Kind: kind}
}

// stays reports that an object is in the cluster, whoever made it, and is not being deleted.
func (r *Reconciler) stays(ctx context.Context, o object.Object) (bool, error) {
	if live, here := r.Cluster.Live(o.Ref); here {
		return !live.Deleting, nil
	}
	live, err := r.Cluster.Read(ctx, o.Ref, o.Body.GroupVersionKind().Version)
	var gone *kube.NotFoundError
	if errors.As(err, &gone) {
		return false, nil
	}
	return err == nil && live.GetDeletionTimestamp() == nil, err
}

// judgedLate reports an object that the API server cannot judge before the barrier of phase 1.
func (a arrivals) judgedLate(o object.Object) bool {
	return a.namespaces[o.Ref.Namespace] || a.kinds[o.Ref.GroupKind()]
}
