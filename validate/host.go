package validate

import (
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/nexus-platform/reconciler/object"
)

// nodePaths hold what rules a node: its credentials, the container runtime, the state
// of the cluster. Whoever mounts one of them, something above or below it, owns the node.
var nodePaths = []string{
	"/boot", "/dev", "/etc", "/home", "/proc", "/root", "/run", "/sys", "/usr", "/var/run",
	"/var/lib/containerd", "/var/lib/docker", "/var/lib/etcd", "/var/lib/kubelet", "/var/lib/rancher",
}

// hostAccess looks for pods that reach their node. An environment that is bounded to
// namespaces could leave them that way, so for it that is an error; what a namespace
// tolerates beyond that is for its Pod Security level to say.
func (r *run) hostAccess(o object.Object, pod *corev1.PodSpec, root string) {
	takesNode := r.warn
	if r.bounded() {
		takesNode = r.refuse
	}
	const fix = "remove it, or deploy the workload from an environment that may touch the whole cluster"
	for i, v := range pod.Volumes {
		if v.HostPath == nil {
			continue
		}
		field := fmt.Sprintf("%s.volumes[%d].hostPath", root, i)
		if rulesNode(v.HostPath.Path) {
			takesNode(o, "host-access", field, fmt.Sprintf("%s gives the pod power over its node", v.HostPath.Path), fix)
		} else {
			r.warn(o, "host-access", field, fmt.Sprintf("%s is a directory of the node", v.HostPath.Path), "prefer a PersistentVolumeClaim")
		}
	}
	if pod.HostPID {
		takesNode(o, "host-access", root+".hostPID", "gives the pod power over its node", fix)
	}
	if pod.HostIPC {
		r.warn(o, "host-access", root+".hostIPC", "shares memory with the node's processes", "remove it")
	}
	if pod.HostNetwork {
		r.warn(o, "host-access", root+".hostNetwork", "puts the pod into the node's network, past every NetworkPolicy", "remove it")
	}
	for list, containers := range map[string][]corev1.Container{"initContainers": pod.InitContainers, "containers": pod.Containers} {
		for i, c := range containers {
			if s := c.SecurityContext; s != nil && s.Privileged != nil && *s.Privileged {
				takesNode(o, "host-access", fmt.Sprintf("%s.%s[%d].securityContext.privileged", root, list, i), "gives the pod power over its node", fix)
			}
		}
	}
}

// rulesNode reports a path that holds, or lies in, one of nodePaths.
func rulesNode(p string) bool {
	p = path.Clean("/" + p)
	for _, n := range nodePaths {
		if p == "/" || p == n || strings.HasPrefix(n, p+"/") || strings.HasPrefix(p, n+"/") {
			return true
		}
	}
	return false
}
