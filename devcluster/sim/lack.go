package sim

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Lookup finds a ConfigMap or Secret (kind) in the pod's namespace and returns its keys; nil if it is not there.
type Lookup func(kind, name string) (keys map[string]bool, err error)

// Lack is something that keeps a container (or, if a volume lacks it, the pod) from starting.
type Lack struct {
	Container string // whose environment it is, or:
	Volume    string
	Message   string // as the kubelet words it
}

// reference names what has to be there.
type reference struct {
	kind, name, key string // key "": the object alone
	lack            Lack
}

// Lacks returns what the pod refers to, must have, and does not find. Optional references are no lacks.
func Lacks(pod *corev1.Pod, look Lookup) ([]Lack, error) {
	var lacks []Lack
	for _, r := range references(pod) {
		keys, err := look(r.kind, r.name)
		if err != nil {
			return nil, err
		}
		lack := r.lack
		switch {
		case keys == nil:
			lack.Message = fmt.Sprintf("%s %q not found", map[string]string{"ConfigMap": "configmap", "Secret": "secret"}[r.kind], r.name)
		case r.key == "" || keys[r.key]:
			continue
		case lack.Volume == "":
			lack.Message = fmt.Sprintf("couldn't find key %s in %s %s/%s", r.key, r.kind, pod.Namespace, r.name)
		default:
			lack.Message = fmt.Sprintf("references non-existent %s key: %s", map[string]string{"ConfigMap": "config", "Secret": "secret"}[r.kind], r.key)
		}
		if lack.Volume != "" {
			lack.Message = fmt.Sprintf("MountVolume.SetUp failed for volume %q : %s", lack.Volume, lack.Message)
		}
		lacks = append(lacks, lack)
	}
	return lacks, nil
}

func references(pod *corev1.Pod) []reference {
	var all []reference
	for i := range pod.Spec.InitContainers {
		all = append(all, environment(&pod.Spec.InitContainers[i])...)
	}
	for i := range pod.Spec.Containers {
		all = append(all, environment(&pod.Spec.Containers[i])...)
	}
	for i := range pod.Spec.Volumes {
		all = append(all, volume(&pod.Spec.Volumes[i])...)
	}
	return all
}

func optional(b *bool) bool { return b != nil && *b }

func environment(c *corev1.Container) []reference {
	var all []reference
	add := func(kind, name, key string, opt *bool) {
		if !optional(opt) {
			all = append(all, reference{kind, name, key, Lack{Container: c.Name}})
		}
	}
	for _, e := range c.EnvFrom {
		if r := e.ConfigMapRef; r != nil {
			add("ConfigMap", r.Name, "", r.Optional)
		}
		if r := e.SecretRef; r != nil {
			add("Secret", r.Name, "", r.Optional)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
			add("ConfigMap", r.Name, r.Key, r.Optional)
		}
		if r := e.ValueFrom.SecretKeyRef; r != nil {
			add("Secret", r.Name, r.Key, r.Optional)
		}
	}
	return all
}

func volume(v *corev1.Volume) []reference {
	var all []reference
	add := func(kind, name string, items []corev1.KeyToPath, opt *bool) {
		if optional(opt) {
			return
		}
		all = append(all, reference{kind, name, "", Lack{Volume: v.Name}})
		for _, item := range items {
			all = append(all, reference{kind, name, item.Key, Lack{Volume: v.Name}})
		}
	}
	if s := v.ConfigMap; s != nil {
		add("ConfigMap", s.Name, s.Items, s.Optional)
	}
	if s := v.Secret; s != nil {
		add("Secret", s.SecretName, s.Items, s.Optional)
	}
	if v.Projected == nil {
		return all
	}
	for _, p := range v.Projected.Sources {
		if s := p.ConfigMap; s != nil {
			add("ConfigMap", s.Name, s.Items, s.Optional)
		}
		if s := p.Secret; s != nil {
			add("Secret", s.Name, s.Items, s.Optional)
		}
	}
	return all
}
