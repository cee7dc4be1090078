package cache

import (
	"fmt"
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nexus-platform/reconciler/object"
)

// The kinds that stand beside our objects: health looks at them again and again, so they are kept decoded, and
// without most of their specification.
var (
	Pod        = schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	ReplicaSet = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "ReplicaSet"}
)

// NewSide makes the form in which a pod or replica set is kept. It uses u up.
func NewSide(u *unstructured.Unstructured) (*Live, error) {
	slim(u)
	l := &Live{Ref: object.RefOf(u), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion()}
	switch u.GetKind() {
	case Pod.Kind:
		l.side = &corev1.Pod{}
	case ReplicaSet.Kind:
		l.side = &appsv1.ReplicaSet{}
	default:
		return nil, fmt.Errorf("%s is neither a pod nor a replica set", l.Ref)
	}
	return l, runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, l.side)
}

// slim leaves of a pod or replica set what health needs: metadata, status, the names of containers and of the claims that they mount.
func slim(u *unstructured.Unstructured) {
	spec, _ := u.Object["spec"].(map[string]any)
	keep := map[string]any{}
	for _, f := range []string{"nodeName", "restartPolicy", "replicas"} {
		if v, ok := spec[f]; ok {
			keep[f] = v
		}
	}
	for _, f := range []string{"containers", "initContainers"} {
		list, _ := spec[f].([]any)
		var short []any
		for _, item := range list {
			c, _ := item.(map[string]any)
			c = maps.Clone(c)
			maps.DeleteFunc(c, func(k string, _ any) bool { return k != "name" && k != "restartPolicy" })
			short = append(short, c)
		}
		if short != nil {
			keep[f] = short
		}
	}
	if claims := mounted(spec); claims != nil {
		keep["volumes"] = claims
	}
	u.Object["spec"] = keep
	u.SetManagedFields(nil)
	notes := u.GetAnnotations()
	maps.DeleteFunc(notes, func(k, _ string) bool { return k != "deployment.kubernetes.io/revision" })
	u.SetAnnotations(notes)
}

// mounted are the volumes that are claims.
func mounted(spec map[string]any) []any {
	volumes, _ := spec["volumes"].([]any)
	var claims []any
	for _, item := range volumes {
		v, _ := item.(map[string]any)
		if claim, ok := v["persistentVolumeClaim"]; ok {
			claims = append(claims, map[string]any{"name": v["name"], "persistentVolumeClaim": claim})
		}
	}
	return claims
}

// Pods lists the pods of a namespace, in no order. Nobody may change them.
func (c *Cache) Pods(namespace string) []*corev1.Pod { return beside[*corev1.Pod](c, Pod, namespace) }

// ReplicaSets lists the replica sets of a namespace, in no order. Nobody may change them.
func (c *Cache) ReplicaSets(namespace string) []*appsv1.ReplicaSet {
	return beside[*appsv1.ReplicaSet](c, ReplicaSet, namespace)
}

func beside[T any](c *Cache, gvk schema.GroupVersionKind, namespace string) []T {
	c.mu.RLock()
	defer c.mu.RUnlock()
	names := c.side[place{gvk.GroupKind(), namespace}]
	out := make([]T, 0, len(names))
	for _, l := range names {
		if o, ok := l.side.(T); ok {
			out = append(out, o)
		}
	}
	return out
}

// Owner climbs from a pod or replica set to the object of ours that it belongs to.
func (c *Cache) Owner(l *Live) (object.Ref, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for l != nil {
		o, ok := l.side.(metav1.Object)
		if !ok {
			return object.Ref{}, false
		}
		controller := metav1.GetControllerOf(o)
		if controller == nil {
			return object.Ref{}, false
		}
		gv, err := schema.ParseGroupVersion(controller.APIVersion)
		if err != nil {
			return object.Ref{}, false
		}
		up := object.Ref{Group: gv.Group, Kind: controller.Kind, Namespace: l.Ref.Namespace, Name: controller.Name}
		if ours := c.ours[up]; ours != nil && ours.UID == controller.UID {
			return up, true
		}
		l = c.get(true, up)
	}
	return object.Ref{}, false
}
