package kube

import (
	"bytes"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nexus-platform/reconciler/kube/fields"
	"github.com/nexus-platform/reconciler/object"
)

// Touched reports that a live object is not as the record's apply left it: fields of ours changed, or there are others.
func Touched(live *unstructured.Unstructured, rec object.Record) bool {
	now, err := fields.Record(live)
	return err != nil || live.GetUID() != rec.UID || now.Live != rec.Live || !bytes.Equal(now.Fields, rec.Fields)
}

// AppliedByUs reports that an apply of ours made, or changed, an object. Labels and annotations alone do not tell: they are copied.
func AppliedByUs(live *unstructured.Unstructured) bool {
	return slices.ContainsFunc(live.GetManagedFields(), fields.IsOurs)
}

// Live finds an object with our label in the watch cache. It sends nothing.
func (c *Cluster) Live(r object.Ref) (*Live, bool) { return c.cache.Live(r) }

// Unlabelled reports that an object of ours is still there but somebody took our label off: Live does not find it, Read does.
func (c *Cluster) Unlabelled(r object.Ref) bool { return c.cache.Unlabelled(r) }

// Owned lists, in order, every object of the watched kinds that carries our label.
func (c *Cluster) Owned() []object.Ref { return c.cache.Owned() }

// Pods lists the pods of a namespace in scope as the watch told them last: metadata, status and the names of containers. They are read only.
func (c *Cluster) Pods(namespace string) []*corev1.Pod { return c.cache.Pods(namespace) }

// ReplicaSets lists the replica sets of a namespace in scope in the same way.
func (c *Cluster) ReplicaSets(namespace string) []*appsv1.ReplicaSet {
	return c.cache.ReplicaSets(namespace)
}
