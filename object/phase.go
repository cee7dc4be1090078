package object

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Phase is one of the eight steps of a release, in order.
type Phase int

// The phases. Migrations, Verification and Validation hold no objects of their own.
const (
	Infrastructure Phase = iota + 1
	Database
	Migrations
	Application
	Monitoring
	Networking
	Verification
	Validation
)

// Phases are all phases in order.
var Phases = []Phase{Infrastructure, Database, Migrations, Application, Monitoring, Networking, Verification, Validation}

var phaseNames = []string{"", "infrastructure", "database", "migrations", "application", "monitoring", "networking", "verification", "validation"}

func (p Phase) String() string {
	if p < Infrastructure || p > Validation {
		return fmt.Sprintf("phase(%d)", int(p))
	}
	return phaseNames[p]
}

// MarshalText writes the name.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads a name.
func (p *Phase) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePhase(string(b))
	return err
}

// ParsePhase finds a phase by its name.
func ParsePhase(name string) (Phase, error) {
	if i := slices.Index(phaseNames, name); i > 0 {
		return Phase(i), nil
	}
	return 0, fmt.Errorf("unknown phase %q; it is one of %s", name, strings.Join(phaseNames[1:], ", "))
}

// PhaseOf places u: by its annotation, else by its kind. exists says whether
// the cluster has it already: a Service or NetworkPolicy that is new comes before the
// workloads, a changed one acts after the workloads that it selects (design 3.5).
func PhaseOf(u *unstructured.Unstructured, exists bool) (Phase, error) {
	if name := u.GetAnnotations()[PhaseAnnotation]; name != "" {
		p, err := ParsePhase(name)
		if err != nil {
			return 0, fmt.Errorf("annotation %s: %w", PhaseAnnotation, err)
		}
		if p == Verification || p == Validation {
			return 0, fmt.Errorf("annotation %s: phase %s holds no objects", PhaseAnnotation, p)
		}
		return p, nil
	}
	gk := u.GroupVersionKind().GroupKind()
	switch gk.Group {
	case "monitoring.coreos.com", "grafana.integreatly.org":
		return Monitoring, nil
	case "networking.istio.io", "gateway.networking.k8s.io", "traefik.io", "projectcontour.io":
		return Networking, nil
	}
	switch gk.Kind {
	case "Ingress", "IngressClass":
		return Networking, nil
	case "Service", "NetworkPolicy":
		if exists {
			return Application, nil
		}
		return Infrastructure, nil
	}
	if infrastructureKinds[gk.String()] {
		return Infrastructure, nil
	}
	switch u.GetLabels()["app.kubernetes.io/component"] {
	case "database", "cache":
		return Database, nil
	}
	if databaseGroups[gk.Group] {
		return Database, nil
	}
	return Application, nil
}

var infrastructureKinds = map[string]bool{
	"Namespace": true, "CustomResourceDefinition.apiextensions.k8s.io": true,
	"PriorityClass.scheduling.k8s.io": true, "RuntimeClass.node.k8s.io": true, "StorageClass.storage.k8s.io": true,
	"ResourceQuota": true, "LimitRange": true, "ServiceAccount": true, "Secret": true, "ConfigMap": true,
	"PersistentVolume": true, "PersistentVolumeClaim": true,
	"Role.rbac.authorization.k8s.io": true, "ClusterRole.rbac.authorization.k8s.io": true,
	"RoleBinding.rbac.authorization.k8s.io": true, "ClusterRoleBinding.rbac.authorization.k8s.io": true,
	"VolumeSnapshotClass.snapshot.storage.k8s.io": true,
	"Issuer.cert-manager.io":                      true, "ClusterIssuer.cert-manager.io": true,
}

// Operators whose resources are databases or caches even where nobody labelled them.
var databaseGroups = map[string]bool{
	"postgresql.cnpg.io": true, "acid.zalan.do": true, "postgres-operator.crunchydata.com": true,
	"databases.spotahome.com": true, "redis.redis.opstreelabs.in": true, "k8s.mariadb.com": true,
}

// kindOrder is the order inside a phase: what others need comes first, what acts on others last.
var kindOrder = []string{
	"Namespace", "CustomResourceDefinition", "PriorityClass", "RuntimeClass", "StorageClass", "VolumeSnapshotClass",
	"ResourceQuota", "LimitRange", "ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding",
	"PersistentVolume", "PersistentVolumeClaim", "Secret", "ConfigMap", "Issuer", "ClusterIssuer", "Service", "NetworkPolicy",
	"StatefulSet", "DaemonSet", "ReplicaSet", "Deployment", "Pod", "Job", "CronJob",
	"", // every other kind
	"HorizontalPodAutoscaler", "VerticalPodAutoscaler", "PodDisruptionBudget", "ScaledObject",
	"IngressClass", "Gateway", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute", "Ingress",
	"APIService", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
}

var otherRank = slices.Index(kindOrder, "")

func kindRank(kind string) int {
	if i := slices.Index(kindOrder, kind); i >= 0 {
		return i
	}
	return otherRank
}
