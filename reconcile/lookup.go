package reconcile

import (
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/object"
)

// lookup answers validate's questions about the cluster. Objects of the set itself are
// not asked for: whether they exist is what their dry-run tells, without a request of its own.
type lookup struct {
	cluster    *kube.Cluster
	set        *object.Set
	namespaces map[string]bool // that hold an object of ours, and so exist
}

func newLookup(cluster *kube.Cluster, set *object.Set) lookup {
	l := lookup{cluster: cluster, set: set, namespaces: map[string]bool{}}
	for _, ref := range cluster.Owned() {
		l.namespaces[ref.Namespace] = true
	}
	return l
}

// Metadata implements validate.World.
func (l lookup) Metadata(ctx context.Context, ref object.Ref) (*metav1.PartialObjectMetadata, error) {
	if live, ok := l.cluster.Live(ref); ok {
		return partial(live.Object()), nil
	}
	if _, ours := l.set.Get(ref); ours {
		return nil, nil
	}
	if ref.Kind == "Namespace" && ref.Group == "" && l.namespaces[ref.Name] {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: ref.Name}}, nil
	}
	version, err := l.cluster.Version(ctx, ref.GroupKind())
	var unknown *kube.NoKindError
	if errors.As(err, &unknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	u, err := l.cluster.Read(ctx, ref, version)
	switch {
	case absent(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return partial(u), nil
}

func partial(u metav1.Object) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: u.GetName(), Namespace: u.GetNamespace(), UID: u.GetUID(), Labels: u.GetLabels(), Annotations: u.GetAnnotations(),
		OwnerReferences: u.GetOwnerReferences(), ManagedFields: u.GetManagedFields(), DeletionTimestamp: u.GetDeletionTimestamp(),
	}}
}

// Scope implements validate.World.
func (l lookup) Scope(ctx context.Context, gvk schema.GroupVersionKind) (namespaced, known bool, err error) {
	m, err := l.cluster.Mapping(ctx, gvk)
	var unknown *kube.NoKindError
	if errors.As(err, &unknown) {
		return false, false, nil
	}
	return m.Namespaced, err == nil, err
}
