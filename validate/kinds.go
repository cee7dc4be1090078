package validate

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/validate/kinds"
)

// crds are the kinds that the CRDs of the set bring.
type crds map[schema.GroupKind]crd

type crd struct {
	ref        object.Ref
	namespaced bool
	versions   map[string]crdVersion
}

type crdVersion struct {
	served, deprecated bool
}

func crdsOf(set *object.Set) crds {
	found := crds{}
	for _, o := range set.Objects {
		if o.Ref.GroupKind() != kinds.CRD {
			continue
		}
		c := crd{ref: o.Ref, namespaced: at[string](o, "spec", "scope") == "Namespaced", versions: map[string]crdVersion{}}
		for _, v := range at[[]any](o, "spec", "versions") {
			m, _ := v.(map[string]any)
			name, _ := m["name"].(string)
			served, _ := m["served"].(bool)
			deprecated, _ := m["deprecated"].(bool)
			c.versions[name] = crdVersion{served: served, deprecated: deprecated}
		}
		found[schema.GroupKind{Group: at[string](o, "spec", "group"), Kind: at[string](o, "spec", "names", "kind")}] = c
	}
	return found
}

// kind checks that the cluster can hold o at all, then whether this environment may write it.
func (r *run) kind(ctx context.Context, o object.Object) error {
	if r.outOfReach(o) {
		return nil
	}
	gvk := o.Body.GroupVersionKind()
	removed := r.lifecycle(o)
	is, err := r.scopeOf(ctx, gvk)
	if err != nil {
		return err
	}
	switch c, ours := r.crds[gvk.GroupKind()]; {
	case removed:
	case ours:
		r.crdVersion(o, c, gvk.Version)
		err = r.order(ctx, o, c.ref, "apiVersion", "late-crd")
	case is.known:
	case r.World != nil:
		r.refuse(o, "unknown-kind", "kind", fmt.Sprintf("the cluster serves no %s in %s and the set has no CRD for it", gvk.Kind, gvk.GroupVersion()),
			"correct apiVersion and kind, or add the CRD")
	case !r.warned[gvk]:
		r.warned[gvk] = true
		r.warn(o, "unknown-kind", "kind", fmt.Sprintf("there is no schema for %s in %s at hand, so its fields cannot be checked without a cluster", gvk.Kind, gvk.GroupVersion()), "")
	}
	if err != nil {
		return err
	}
	if is.known && is.namespaced && o.Ref.Namespace == "" {
		r.refuse(o, "no-namespace", "metadata.namespace", "is missing", "write it, or namespace: in kustomization.yaml")
		return nil
	}
	if is.known && !is.namespaced && o.Ref.Namespace != "" {
		r.refuse(o, "has-namespace", "metadata.namespace", "is set, but objects of this kind are in no namespace",
			"remove it; where the namespace: of a kustomization.yaml writes it, list the file in another one")
		return nil
	}
	r.scope(o, is)
	return r.namespace(ctx, o)
}

func (r *run) crdVersion(o object.Object, c crd, version string) {
	switch v, has := c.versions[version]; {
	case !has || !v.served:
		r.refuse(o, "unknown-kind", "apiVersion", fmt.Sprintf("version %q is not served by %s", version, c.ref), "use a version that it serves")
	case v.deprecated:
		r.warn(o, "deprecated-api", "apiVersion", fmt.Sprintf("version %q is deprecated by %s", version, c.ref), "use a newer version")
	}
}

// scopeOf finds out whether objects of a kind are in namespaces: from the set's CRDs, the cluster, the built-in kinds, in this order.
func (r *run) scopeOf(ctx context.Context, gvk schema.GroupVersionKind) (served, error) {
	if c, ok := r.crds[gvk.GroupKind()]; ok {
		return served{namespaced: c.namespaced, known: true}, nil
	}
	if is, ok := r.scopes[gvk]; ok {
		return is, nil
	}
	is := served{namespaced: !kinds.ClusterWide(gvk.GroupKind()), known: kinds.BuiltIn(gvk)}
	if r.World != nil {
		namespaced, known, err := r.World.Scope(ctx, gvk)
		if err != nil {
			return served{}, fmt.Errorf("look up the kind %s: %w", gvk, err)
		}
		is = served{namespaced: namespaced, known: known}
	}
	r.scopes[gvk] = is
	return is, nil
}

// lifecycle reports an API version that the server no longer has or will lose; true: it is gone.
func (r *run) lifecycle(o object.Object) bool {
	gvk := o.Body.GroupVersionKind()
	l, ok := kinds.LifeOf(gvk)
	if !ok {
		return false
	}
	server := r.ServerVersion
	if server == nil {
		server = version.MustParseGeneric(kinds.NewestServer)
	}
	reached := func(minor uint) bool { return minor > 0 && server.AtLeast(version.MajorMinor(1, minor)) }
	fix := ""
	if l.Instead != "" {
		fix = "use " + l.Instead
	}
	switch {
	case reached(l.Removed):
		r.refuse(o, "removed-api", "apiVersion", fmt.Sprintf("%s in %s is gone since Kubernetes 1.%d", gvk.Kind, gvk.GroupVersion(), l.Removed), fix)
		return true
	case reached(l.Deprecated):
		when := ""
		if l.Removed > 0 {
			when = fmt.Sprintf(" and goes with 1.%d", l.Removed)
		}
		r.warn(o, "deprecated-api", "apiVersion", fmt.Sprintf("%s in %s is deprecated since Kubernetes 1.%d%s", gvk.Kind, gvk.GroupVersion(), l.Deprecated, when), fix)
	}
	return false
}

// matchesKind finds a kind in a list of Kind (any group) and Kind.group.
func matchesKind(list []string, gk schema.GroupKind) bool {
	return slices.Contains(list, gk.Kind) || slices.Contains(list, gk.String())
}

// at reads a field of the body, without a copy; the zero value if it is missing or of another type.
func at[T any](o object.Object, fields ...string) T {
	v, _, _ := unstructured.NestedFieldNoCopy(o.Body.Object, fields...)
	t, _ := v.(T)
	return t
}
