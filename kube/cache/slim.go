package cache

import (
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Slim leaves of a pod or replica set what health needs. It changes u.
func Slim(u *unstructured.Unstructured) {
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
	u.Object["spec"] = keep
	u.SetManagedFields(nil)
	notes := u.GetAnnotations()
	maps.DeleteFunc(notes, func(k, _ string) bool { return k != "deployment.kubernetes.io/revision" })
	u.SetAnnotations(notes)
}
