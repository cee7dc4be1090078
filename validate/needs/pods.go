// Package needs lists the objects that an object cannot do without.
package needs

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/nexus-platform/reconciler/object"
)

// podPaths says where the built-in workloads keep the spec of their pods.
var podPaths = map[string][]string{
	"Pod":                   {"spec"},
	"PodTemplate":           {"template", "spec"},
	"ReplicationController": {"spec", "template", "spec"},
	"Deployment.apps":       {"spec", "template", "spec"},
	"StatefulSet.apps":      {"spec", "template", "spec"},
	"DaemonSet.apps":        {"spec", "template", "spec"},
	"ReplicaSet.apps":       {"spec", "template", "spec"},
	"Job.batch":             {"spec", "template", "spec"},
	"CronJob.batch":         {"spec", "jobTemplate", "spec", "template", "spec"},
	"Deployment.extensions": {"spec", "template", "spec"},
	"DaemonSet.extensions":  {"spec", "template", "spec"},
	"ReplicaSet.extensions": {"spec", "template", "spec"},
}

// ErrNoPod says that a workload has no pod spec where its kind keeps it.
var ErrNoPod = errors.New("is missing or not a map")

// Pod is what a workload runs.
type Pod struct {
	Spec  corev1.PodSpec
	Field string // where the spec is in the workload, such as spec.template.spec
}

// PodOf reads the pod that a built-in workload runs. Nil without an error: o runs none.
// The error may hold the value of a field. A Pod with nothing but Field comes with it.
func PodOf(o object.Object) (*Pod, error) {
	fields, ok := podPaths[o.Ref.GroupKind().String()]
	if !ok {
		return nil, nil
	}
	pod := &Pod{Field: strings.Join(fields, ".")}
	raw := at[map[string]any](o, fields...)
	if raw == nil {
		return pod, ErrNoPod
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &pod.Spec); err != nil {
		return &Pod{Field: pod.Field}, err
	}
	return pod, nil
}

// Need is one object that another one refers to.
type Need struct {
	Ref   object.Ref
	Field string
	Key   string // of a ConfigMap or Secret; empty: any
	Soft  bool   // the pod starts without it
}

// OfPod lists the ConfigMaps, Secrets, ServiceAccounts and claims, all in namespace ns,
// that a pod cannot start without; optional references are left out.
func OfPod(ns string, pod *Pod) []Need {
	n, spec, root := list{ns: ns}, &pod.Spec, pod.Field
	if spec.ServiceAccountName != "" {
		n.add("ServiceAccount", spec.ServiceAccountName, root+".serviceAccountName", "", nil)
	} else if spec.DeprecatedServiceAccount != "" {
		n.add("ServiceAccount", spec.DeprecatedServiceAccount, root+".serviceAccount", "", nil)
	}
	for i, s := range spec.ImagePullSecrets {
		n.add("Secret", s.Name, fmt.Sprintf("%s.imagePullSecrets[%d]", root, i), "", nil)
	}
	for i := range n.needs {
		n.needs[i].Soft = n.needs[i].Ref.Kind == "Secret" // the pull is tried without it
	}
	for i, v := range spec.Volumes {
		n.volume(v, fmt.Sprintf("%s.volumes[%d]", root, i))
	}
	for i, c := range spec.InitContainers {
		n.env(c.Env, c.EnvFrom, fmt.Sprintf("%s.initContainers[%d]", root, i))
	}
	for i, c := range spec.Containers {
		n.env(c.Env, c.EnvFrom, fmt.Sprintf("%s.containers[%d]", root, i))
	}
	return n.needs
}

type list struct {
	ns    string
	needs []Need
}

func (n *list) add(kind, name, field, key string, optional *bool) {
	if name == "" || optional != nil && *optional {
		return
	}
	n.needs = append(n.needs, Need{Ref: object.Ref{Kind: kind, Namespace: n.ns, Name: name}, Field: field, Key: key})
}

func (n *list) env(env []corev1.EnvVar, from []corev1.EnvFromSource, root string) {
	for i, f := range from {
		field := fmt.Sprintf("%s.envFrom[%d]", root, i)
		if f.ConfigMapRef != nil {
			n.add("ConfigMap", f.ConfigMapRef.Name, field, "", f.ConfigMapRef.Optional)
		}
		if f.SecretRef != nil {
			n.add("Secret", f.SecretRef.Name, field, "", f.SecretRef.Optional)
		}
	}
	for i, e := range env {
		field := fmt.Sprintf("%s.env[%d]", root, i)
		if e.ValueFrom == nil {
			continue
		}
		if s := e.ValueFrom.ConfigMapKeyRef; s != nil {
			n.add("ConfigMap", s.Name, field, s.Key, s.Optional)
		}
		if s := e.ValueFrom.SecretKeyRef; s != nil {
			n.add("Secret", s.Name, field, s.Key, s.Optional)
		}
	}
}

func (n *list) volume(v corev1.Volume, field string) {
	switch {
	case v.ConfigMap != nil:
		n.items("ConfigMap", v.ConfigMap.Name, field+".configMap", v.ConfigMap.Items, v.ConfigMap.Optional)
	case v.Secret != nil:
		n.items("Secret", v.Secret.SecretName, field+".secret", v.Secret.Items, v.Secret.Optional)
	case v.PersistentVolumeClaim != nil:
		n.add("PersistentVolumeClaim", v.PersistentVolumeClaim.ClaimName, field+".persistentVolumeClaim", "", nil)
	case v.Projected != nil:
		for i, s := range v.Projected.Sources {
			at := fmt.Sprintf("%s.projected.sources[%d]", field, i)
			if s.ConfigMap != nil {
				n.items("ConfigMap", s.ConfigMap.Name, at, s.ConfigMap.Items, s.ConfigMap.Optional)
			}
			if s.Secret != nil {
				n.items("Secret", s.Secret.Name, at, s.Secret.Items, s.Secret.Optional)
			}
		}
	case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
		n.add("Secret", v.CSI.NodePublishSecretRef.Name, field+".csi.nodePublishSecretRef", "", nil)
	case v.AzureFile != nil:
		n.add("Secret", v.AzureFile.SecretName, field+".azureFile", "", nil)
	case v.ISCSI != nil && v.ISCSI.SecretRef != nil:
		n.add("Secret", v.ISCSI.SecretRef.Name, field+".iscsi.secretRef", "", nil)
	case v.CephFS != nil && v.CephFS.SecretRef != nil:
		n.add("Secret", v.CephFS.SecretRef.Name, field+".cephfs.secretRef", "", nil)
	case v.RBD != nil && v.RBD.SecretRef != nil:
		n.add("Secret", v.RBD.SecretRef.Name, field+".rbd.secretRef", "", nil)
	case v.FlexVolume != nil && v.FlexVolume.SecretRef != nil:
		n.add("Secret", v.FlexVolume.SecretRef.Name, field+".flexVolume.secretRef", "", nil)
	}
}

func (n *list) items(kind, name, field string, items []corev1.KeyToPath, optional *bool) {
	if len(items) == 0 {
		n.add(kind, name, field, "", optional)
	}
	for _, item := range items {
		n.add(kind, name, field, item.Key, optional)
	}
}
