// Package object names Kubernetes objects, holds rendered sets of them, and keeps them in the order in which they are applied.
package object

import (
	"cmp"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Ref names one object without its API version: the same object read as
// apps/v1 or apps/v1beta2 has one Ref. Namespace is empty for cluster-scoped objects.
type Ref struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// RefOf names u by what its body says.
func RefOf(u *unstructured.Unstructured) Ref {
	gvk := u.GroupVersionKind()
	return Ref{Group: gvk.Group, Kind: gvk.Kind, Namespace: u.GetNamespace(), Name: u.GetName()}
}

// GroupKind is the group and kind of the object.
func (r Ref) GroupKind() schema.GroupKind { return schema.GroupKind{Group: r.Group, Kind: r.Kind} }

// IsZero reports that r names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// String is the form that people read: Deployment/shop/backend, or
// Namespace/shop for a cluster-scoped object. The group is written only where
// the kind alone could be misread (not one of the built-in groups).
func (r Ref) String() string {
	kind := r.Kind
	if strings.Contains(r.Group, ".") && !strings.HasSuffix(r.Group, ".k8s.io") {
		kind += "." + r.Group
	}
	if r.Namespace == "" {
		return kind + "/" + r.Name
	}
	return kind + "/" + r.Namespace + "/" + r.Name
}

// Compare orders refs by group, kind, namespace and name.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(
		cmp.Compare(r.Group, o.Group),
		cmp.Compare(r.Kind, o.Kind),
		cmp.Compare(r.Namespace, o.Namespace),
		cmp.Compare(r.Name, o.Name),
	)
}

// DependsOnAnnotation lists what must be healthy before the object is applied, in
// the format of https://github.com/kubernetes-sigs/cli-utils (depends-on).
const DependsOnAnnotation = "config.kubernetes.io/depends-on"

// DependsOn reads the depends-on annotation: a comma-separated list of
// group/namespaces/namespace/kind/name, or group/kind/name for cluster-scoped
// objects; the core group is empty ("/namespaces/shop/Service/db").
func DependsOn(u *unstructured.Unstructured) ([]Ref, error) {
	value := u.GetAnnotations()[DependsOnAnnotation]
	if strings.TrimSpace(value) == "" {
		return nil, nil
	}
	var refs []Ref
	for _, item := range strings.Split(value, ",") {
		parts := strings.Split(strings.TrimSpace(item), "/")
		var r Ref
		switch {
		case len(parts) == 3:
			r = Ref{Group: parts[0], Kind: parts[1], Name: parts[2]}
		case len(parts) == 5 && parts[1] == "namespaces":
			r = Ref{Group: parts[0], Namespace: parts[2], Kind: parts[3], Name: parts[4]}
		}
		if r.Kind == "" || r.Name == "" || (len(parts) == 5 && r.Namespace == "") {
			return nil, fmt.Errorf("annotation %s: %q is neither group/namespaces/namespace/kind/name nor group/kind/name",
				DependsOnAnnotation, strings.TrimSpace(item))
		}
		refs = append(refs, r)
	}
	return refs, nil
}
