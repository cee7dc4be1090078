package needs

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nexus-platform/reconciler/object"
)

const rbacGroup = "rbac.authorization.k8s.io"

// Of lists the objects that o refers to but is accepted without: the backends of an
// Ingress, the target of an autoscaler, the role of a binding, the classes of a pod.
func Of(o object.Object) []Need {
	switch o.Ref.GroupKind().String() {
	case "Ingress.networking.k8s.io":
		return ingressBackends(o)
	case "HorizontalPodAutoscaler.autoscaling":
		target := at[map[string]any](o, "spec", "scaleTargetRef")
		version, _ := target["apiVersion"].(string)
		kind, _ := target["kind"].(string)
		name, _ := target["name"].(string)
		gv, err := schema.ParseGroupVersion(version)
		if err != nil || kind == "" || name == "" {
			return nil
		}
		return []Need{{Field: "spec.scaleTargetRef", Ref: object.Ref{Group: gv.Group, Kind: kind, Namespace: o.Ref.Namespace, Name: name}}}
	case "RoleBinding." + rbacGroup, "ClusterRoleBinding." + rbacGroup:
		kind, name := at[string](o, "roleRef", "kind"), at[string](o, "roleRef", "name")
		builtIn := kind == "ClusterRole" && (strings.HasPrefix(name, "system:") || slices.Contains([]string{"admin", "cluster-admin", "edit", "view"}, name))
		if kind == "" || name == "" || builtIn {
			return nil
		}
		ref := object.Ref{Group: rbacGroup, Kind: kind, Name: name}
		if kind == "Role" {
			ref.Namespace = o.Ref.Namespace
		}
		return []Need{{Field: "roleRef", Ref: ref}}
	}
	return podClasses(o)
}

func ingressBackends(o object.Object) []Need {
	var list []Need
	seen := map[string]bool{}
	add := func(backend any, field string) {
		b, _ := backend.(map[string]any)
		s, _ := b["service"].(map[string]any)
		if name, _ := s["name"].(string); name != "" && !seen[name] {
			seen[name] = true
			list = append(list, Need{Field: field, Ref: object.Ref{Kind: "Service", Namespace: o.Ref.Namespace, Name: name}})
		}
	}
	add(at[any](o, "spec", "defaultBackend"), "spec.defaultBackend.service")
	for i, rule := range at[[]any](o, "spec", "rules") {
		m, _ := rule.(map[string]any)
		http, _ := m["http"].(map[string]any)
		paths, _ := http["paths"].([]any)
		for j, p := range paths {
			path, _ := p.(map[string]any)
			add(path["backend"], fmt.Sprintf("spec.rules[%d].http.paths[%d].backend.service", i, j))
		}
	}
	return list
}

// podClasses are the cluster-wide classes that a pod names; those that begin with system- are built in.
func podClasses(o object.Object) []Need {
	pod, err := PodOf(o)
	if pod == nil || err != nil {
		return nil
	}
	var list []Need
	if name := pod.Spec.PriorityClassName; name != "" && !strings.HasPrefix(name, "system-") {
		list = append(list, Need{Field: pod.Field + ".priorityClassName", Ref: object.Ref{Group: "scheduling.k8s.io", Kind: "PriorityClass", Name: name}})
	}
	if name := pod.Spec.RuntimeClassName; name != nil && *name != "" {
		list = append(list, Need{Field: pod.Field + ".runtimeClassName", Ref: object.Ref{Group: "node.k8s.io", Kind: "RuntimeClass", Name: *name}})
	}
	return list
}

// Mentions reports that a string somewhere in v matches.
func Mentions(v any, match func(string) bool) bool {
	switch v := v.(type) {
	case string:
		return match(v)
	case []any:
		for _, e := range v {
			if Mentions(e, match) {
				return true
			}
		}
	case map[string]any:
		for _, e := range v {
			if Mentions(e, match) {
				return true
			}
		}
	}
	return false
}

// at reads a field of the body; the zero value if it is missing or of another type.
func at[T any](o object.Object, fields ...string) T {
	v, _, _ := unstructured.NestedFieldNoCopy(o.Body.Object, fields...)
	t, _ := v.(T)
	return t
}
