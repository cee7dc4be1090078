package kube

import (
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nexus-platform/reconciler/kube/fault"
	"github.com/nexus-platform/reconciler/object"
)

// Read asks the API server for an object, by a quorum read in the given API version
// (without the group). The error is a *NotFoundError if it is not there.
func (c *Cluster) Read(ctx context.Context, ref object.Ref, version string) (*unstructured.Unstructured, error) {
	m, err := c.locate(ctx, ref, version)
	if err != nil {
		return nil, err
	}
	q := fault.Request{Ref: ref, Kind: ref.GroupKind().WithVersion(version)}
	u, _, err := c.do(ctx, q, c.rest.Get().AbsPath(m.path(ref.Namespace, ref.Name)...))
	var gone *NotFoundError
	if errors.As(err, &gone) && c.cache.Gone(ref) {
		c.changed(ref)
	}
	return u, err
}

// Delete deletes one object, its dependents in the background, if it still has that uid and, unless it is
// empty, that resourceVersion: else the error is a *ConflictError. An object that is not there is deleted.
// Finalizers may keep it for a while after Delete returned.
func (c *Cluster) Delete(ctx context.Context, ref object.Ref, version string, uid types.UID, resourceVersion string) error {
	m, err := c.locate(ctx, ref, version)
	var unknown *NoKindError
	if errors.As(err, &unknown) {
		return nil
	}
	if err != nil {
		return err
	}
	if uid == "" {
		return fault.Invalid(ref, "metadata.uid", "is needed to delete exactly what was planned")
	}
	background := metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{
		TypeMeta:      metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"},
		Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &background,
	}
	if resourceVersion != "" {
		options.Preconditions.ResourceVersion = &resourceVersion
	}
	c.cache.Expect(ref, uid)
	q := fault.Request{Ref: ref, Kind: ref.GroupKind().WithVersion(version), Write: true}
	result := c.rest.Delete().AbsPath(m.path(ref.Namespace, ref.Name)...).Body(&options).MaxRetries(retriesAfter).Do(ctx)
	err = q.Classify(result.Error())
	var gone *NotFoundError
	switch {
	case err == nil, errors.As(err, &gone), errors.As(err, &unknown):
		return nil
	}
	c.cache.Unexpect(uid)
	return err
}

// Empty reports whether a Namespace holds nothing, or a CustomResourceDefinition has no
// instances, beside what is on its way out, what follows from other objects, what every Namespace has, and what bears the same stamp.
func (c *Cluster) Empty(ctx context.Context, live *unstructured.Unstructured) (bool, error) {
	var kinds []schema.GroupVersionKind
	namespace := ""
	switch live.GetKind() {
	case "Namespace":
		namespace = live.GetName()
		if _, err := c.Mapping(ctx, live.GroupVersionKind()); err != nil { // learns what there is
			return false, err
		}
		kinds = c.kinds.listable()
	case "CustomResourceDefinition":
		kinds = definedKinds(live)
	}
	born := live.GetAnnotations()[object.BornAnnotation]
	for _, gvk := range kinds {
		if derived[gvk.Kind] {
			continue
		}
		m, err := c.Mapping(ctx, gvk)
		var unknown *NoKindError
		if errors.As(err, &unknown) {
			continue
		}
		if err != nil {
			return false, err
		}
		others, err := c.others(ctx, m, gvk, namespace, born)
		if err != nil || others {
			return false, err
		}
	}
	return true, nil
}

// derived kinds follow from others.
var derived = map[string]bool{"Event": true, "Endpoints": true, "EndpointSlice": true, "PodMetrics": true}

// definedKinds is one version of the kind that a definition defines.
func definedKinds(crd *unstructured.Unstructured) []schema.GroupVersionKind {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		if v, ok := v.(map[string]any); ok && v["served"] == true {
			name, _ := v["name"].(string)
			return []schema.GroupVersionKind{{Group: group, Version: name, Kind: kind}}
		}
	}
	return nil
}

// others reports objects of one kind that somebody else made. What may not be listed may be there.
func (c *Cluster) others(ctx context.Context, m Mapping, gvk schema.GroupVersionKind, namespace, born string) (bool, error) {
	const page = 100
	options := metav1.ListOptions{Limit: page}
	for {
		list, err := c.dynamic.Resource(m.Resource).Namespace(namespace).List(ctx, options)
		if err != nil {
			err = fault.Request{Kind: gvk}.Classify(err)
			var forbidden *ForbiddenError
			var unserved *InvalidError // some aggregated kinds cannot be listed although they say so
			var unknown *NoKindError
			switch {
			case errors.As(err, &forbidden):
				return true, nil
			case errors.As(err, &unserved), errors.As(err, &unknown):
				return false, nil
			}
			return false, err
		}
		for i := range list.Items {
			if !incidental(&list.Items[i], born) {
				return true, nil
			}
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return false, nil
		}
	}
}

// incidental reports an object that leaves with its surroundings.
func incidental(u *unstructured.Unstructured, born string) bool {
	if u.GetDeletionTimestamp() != nil || len(u.GetOwnerReferences()) > 0 || born != "" && u.GetAnnotations()[object.BornAnnotation] == born {
		return true
	}
	switch u.GetKind() {
	case "ServiceAccount":
		return u.GetName() == "default"
	case "ConfigMap":
		return u.GetName() == "kube-root-ca.crt"
	}
	return false
}
