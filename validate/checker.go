package validate

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/object"
)

// World is what the cluster has. It is asked about nothing that the set or the
// inventory answers, and about each thing once a check.
type World interface {
	// Metadata of a live object, in any version that the cluster serves; nil if there is
	// none or if the kind is not served. An answer of 403 makes a warning, any other error ends the check.
	Metadata(ctx context.Context, ref object.Ref) (*metav1.PartialObjectMetadata, error)
	// Scope says whether objects of the kind are in namespaces; known is false if the cluster does not serve it in this version.
	Scope(ctx context.Context, gvk schema.GroupVersionKind) (namespaced, known bool, err error)
}

// Checker holds the rules that one environment sets. Set its fields before use; the
// zero Checker checks a set without an environment and without a cluster.
type Checker struct {
	// Environment whose scope bounds the set and whose own objects are out of reach. Nil: everything but our own objects is in scope.
	Environment *v1alpha1.Environment
	// Policy of the commit; nil: the defaults.
	Policy *v1alpha1.ReleasePolicy
	// Owned is the inventory before the release: these objects are ours, and those that are not in the set any more leave with it.
	Owned object.Inventory
	// World answers what the set cannot. Nil: references that leave the set become warnings.
	World World
	// ServerVersion decides which API versions are gone. Nil: the newest that this program knows.
	ServerVersion *version.Version
	// SystemNamespace is where the reconciler lives. Empty: nexus-system.
	SystemNamespace string
}

const (
	defaultSystemNamespace = "nexus-system"
	// maxObjects of one set: beyond it, no bundle, head or watch cache is dimensioned.
	maxObjects = 20_000
)

// Check finds all that is wrong with the set. The error is not about the set: it says
// that the world did not answer, so that nothing can be said.
func (c *Checker) Check(ctx context.Context, set *object.Set) (Findings, error) {
	if set.Len() == 0 {
		return nil, nil
	}
	r := c.begin(set)
	if set.Len() > maxObjects {
		r.refuse(object.Object{}, "too-many-objects", "",
			fmt.Sprintf("the set has %d objects, more than %d", set.Len(), maxObjects), "split it over several environments")
		return r.findings, nil
	}
	for _, o := range set.Objects {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !r.identity(o) {
			continue // what has no name cannot be looked up
		}
		r.metadata(o)
		r.clientSet(o)
		r.size(o)
		r.marks(o)
		for _, rule := range []func(context.Context, object.Object) error{r.kind, r.owner, r.references, r.relations, r.dependencies} {
			if err := rule(ctx, o); err != nil {
				return nil, fmt.Errorf("check %s: %w", o.Ref, err)
			}
		}
	}
	r.cycles()
	r.missingNamespaces()
	return Merge(r.findings), nil
}

// run is one check of one set.
type run struct {
	*Checker
	report
	set      *object.Set
	crds     crds
	owned    map[object.Ref]bool
	reserved map[object.Ref]string
	live     map[object.Ref]answer
	scopes   map[schema.GroupVersionKind]served
	homeless map[string][]object.Object // objects by the namespace that is not there
	warned   map[schema.GroupVersionKind]bool
}

type answer struct {
	meta      *metav1.PartialObjectMetadata
	forbidden bool
}

type served struct{ namespaced, known bool }

func (c *Checker) begin(set *object.Set) *run {
	r := &run{
		Checker: c, set: set, crds: crdsOf(set),
		owned:    make(map[object.Ref]bool, len(c.Owned)),
		reserved: Reserved(c.Environment),
		live:     map[object.Ref]answer{},
		scopes:   map[schema.GroupVersionKind]served{},
		homeless: map[string][]object.Object{},
		warned:   map[schema.GroupVersionKind]bool{},
	}
	for _, record := range c.Owned {
		r.owned[record.Ref] = true
	}
	return r
}

// presence says where a referenced object is.
type presence int

const (
	absent  presence = iota // neither in the set nor in the cluster
	inSet                   // described by the set
	living                  // in the cluster, and stays there
	leaving                 // in the cluster, but this release prunes it
	unknown                 // nobody to ask, or we may not ask
)

func (r *run) find(ctx context.Context, ref object.Ref) (presence, error) {
	if _, ok := r.set.Get(ref); ok {
		return inSet, nil
	}
	live, err := r.ask(ctx, ref)
	switch {
	case err != nil:
		return absent, err
	case r.owned[ref] && !r.keptOnPrune(ref, live.meta):
		return leaving, nil
	case r.World == nil || live.forbidden:
		return unknown, nil
	case live.meta == nil:
		return absent, nil
	}
	return living, nil
}

// keptOnPrune reports that an object outlives its leaving Git.
func (r *run) keptOnPrune(ref object.Ref, live *metav1.PartialObjectMetadata) bool {
	if live != nil && live.Annotations[object.PruneAnnotation] == "never" {
		return true
	}
	if live != nil && live.Annotations[object.PruneAnnotation] == "allow" {
		return false
	}
	switch ref.GroupKind().String() {
	case "PersistentVolumeClaim", "PersistentVolume", "Namespace", "CustomResourceDefinition.apiextensions.k8s.io":
		return true
	}
	return r.Policy != nil && matchesKind(r.Policy.Spec.DataKinds, ref.GroupKind())
}

// ask reads the metadata of a live object, once.
func (r *run) ask(ctx context.Context, ref object.Ref) (answer, error) {
	if r.World == nil {
		return answer{}, nil
	}
	if a, ok := r.live[ref]; ok {
		return a, nil
	}
	meta, err := r.World.Metadata(ctx, ref)
	if err != nil && !apierrors.IsForbidden(err) {
		return answer{}, fmt.Errorf("look up %s: %w", ref, err)
	}
	a := answer{meta: meta, forbidden: err != nil}
	r.live[ref] = a
	return a, nil
}

// exists reports that the cluster has an object already, as far as is known.
func (r *run) exists(ctx context.Context, ref object.Ref) (bool, error) {
	if r.owned[ref] {
		return true, nil
	}
	a, err := r.ask(ctx, ref)
	return a.meta != nil, err
}

// systemNamespace is where the reconciler's own objects are in the target cluster.
func (r *run) systemNamespace() string {
	if r.Environment != nil && r.Environment.Spec.Cluster != nil && r.Environment.Spec.Cluster.Namespace != "" {
		return r.Environment.Spec.Cluster.Namespace
	}
	if r.SystemNamespace != "" {
		return r.SystemNamespace
	}
	return defaultSystemNamespace
}
