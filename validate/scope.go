package validate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/validate/kinds"
)

const (
	systemAccount     = "nexus-reconciler" // the reconciler's own service account
	headPrefix        = "nexus-head-"      // of the journal's Secrets
	sparePrefix       = "nexus-spare-"     // as well
	rbacGroup         = "rbac.authorization.k8s.io"
	everyNamespace    = "*"
	chooseAnotherPath = "take it out of the repository"
)

// kubeNamespaces belong to the cluster: "*" does not mean them.
var kubeNamespaces = []string{"kube-system", "kube-public", "kube-node-lease"}

// Reserved are the objects that an Environment itself needs, with what for: its identity
// and the Secrets with its keys. A commit may neither write nor mount them, or a push
// could add itself to the trusted keys. A nil Environment needs none.
func Reserved(e *v1alpha1.Environment) map[object.Ref]string {
	reserved := map[object.Ref]string{}
	if e == nil {
		return reserved
	}
	add := func(kind, name, what string) {
		if name != "" {
			reserved[object.Ref{Kind: kind, Namespace: e.Namespace, Name: name}] = what
		}
	}
	add("ServiceAccount", e.Spec.ServiceAccountName, "the identity of the environment")
	if s := e.Spec.Source.SecretRef; s != nil {
		add("Secret", s.Name, "the credential of the environment's repository")
	}
	if s := e.Spec.Source.Signatures; s != nil {
		add("Secret", s.SecretRef.Name, "the environment's list of trusted keys")
	}
	if d := e.Spec.Decryption; d != nil {
		add("Secret", d.SecretRef.Name, "the environment's decryption key")
	}
	if c := e.Spec.Cluster; c != nil {
		add("Secret", c.SecretRef.Name, "the environment's kubeconfig")
	}
	return reserved
}

// outOfReach refuses what belongs to the reconciler itself or to the Environment, whatever the scope says.
func (r *run) outOfReach(o object.Object) bool {
	system, gk := r.systemNamespace(), o.Ref.GroupKind()
	var what, field string
	switch {
	case gk.String() == "Namespace" && o.Ref.Name == system:
		what, field = "is the namespace of the reconciler", "metadata.name"
	case o.Ref.Namespace == system:
		what, field = "is in "+system+", the namespace of the reconciler", "metadata.namespace"
	case gk.Group == v1alpha1.GroupVersion.Group && gk.Kind == "ReleasePolicy":
		r.refuse(o, "reserved", "kind", "is no object of the cluster", "put it into release.yaml beside the overlay's kustomization.yaml, and do not list that under resources")
		return true
	case gk.Group == v1alpha1.GroupVersion.Group:
		what, field = "says what may be deployed, so it lives in the cluster and never in the repository that it guards", "kind"
	case gk == kinds.CRD && strings.HasSuffix(o.Ref.Name, "."+v1alpha1.GroupVersion.Group):
		what, field = "is installed with the reconciler", "metadata.name"
	case gk.String() == "Secret" && (strings.HasPrefix(o.Ref.Name, headPrefix) || strings.HasPrefix(o.Ref.Name, sparePrefix)):
		what, field = "has a name that is kept for the journal", "metadata.name"
	case gk.String() == "Secret" && strings.HasPrefix(at[string](o, "type"), object.Domain):
		what, field = "has a type that is kept for the journal", "type"
	case r.reserved[o.Ref] != "":
		what, field = "is "+r.reserved[o.Ref], "metadata.name"
	default:
		return r.bindsUs(o)
	}
	r.refuse(o, "reserved", field, what, chooseAnotherPath)
	return true
}

// bindsUs refuses a binding that gives rights to the reconciler's accounts: they get theirs from the installation alone.
func (r *run) bindsUs(o object.Object) bool {
	switch o.Ref.GroupKind().String() {
	case "RoleBinding." + rbacGroup, "ClusterRoleBinding." + rbacGroup:
	default:
		return false
	}
	system := r.systemNamespace()
	found := false
	for i, s := range at[[]any](o, "subjects") {
		m, _ := s.(map[string]any)
		kind, name, ns := m["kind"], m["name"], m["namespace"]
		group := "system:serviceaccounts:" + system
		user, _ := name.(string)
		if (kind == "ServiceAccount" && ns == system) || (kind == "Group" && name == group) ||
			(kind == "User" && strings.HasPrefix(user, "system:serviceaccount:"+system+":")) {
			r.refuse(o, "reserved", fmt.Sprintf("subjects[%d]", i), "gives rights to an account of the reconciler", "remove the subject")
			found = true
		}
	}
	return found
}

// scope refuses what the Environment does not allow.
func (r *run) scope(o object.Object, is served) {
	if r.Environment == nil {
		return
	}
	allowed, gk := r.Environment.Spec.Scope, o.Ref.GroupKind()
	ask := "take it out, or ask who owns the Environment to widen spec.scope."
	if matchesKind(allowed.DeniedKinds, gk) {
		r.refuse(o, "denied-kind", "kind", "is denied by the environment", "take it out, or ask who owns the Environment about spec.scope.deniedKinds")
		return
	}
	switch clusterWide := o.Ref.Namespace == "" && (!is.known || !is.namespaced); {
	case !clusterWide:
		if !r.inScope(o.Ref.Namespace) {
			r.refuse(o, "namespace-scope", "metadata.namespace", "is outside the environment's namespaces", ask+"namespaces")
		}
	case matchesKind(allowed.ClusterKinds, gk):
		if gk.String() == "Namespace" && slices.Contains(kubeNamespaces, o.Ref.Name) && !r.inScope(o.Ref.Name) {
			r.refuse(o, "namespace-scope", "metadata.name", "is a namespace of the cluster itself", ask+"namespaces")
		}
	case gk.String() == "Namespace":
		if !r.inScope(o.Ref.Name) {
			r.refuse(o, "namespace-scope", "metadata.name", "is outside the environment's namespaces", ask+"namespaces")
		}
	default:
		r.refuse(o, "cluster-scope", "kind", "acts on the whole cluster, which the environment does not allow", ask+"clusterKinds")
	}
}

// inScope reports that the environment may write into a namespace.
func (r *run) inScope(ns string) bool {
	allowed := r.Environment.Spec.Scope.Namespaces
	if len(allowed) == 0 {
		return ns == r.Environment.Namespace
	}
	return slices.Contains(allowed, ns) || slices.Contains(allowed, everyNamespace) && !slices.Contains(kubeNamespaces, ns)
}

// bounded reports that the environment is a tenant: it may touch its namespaces and nothing beyond.
func (r *run) bounded() bool {
	return r.Environment != nil && len(r.Environment.Spec.Scope.ClusterKinds) == 0 &&
		!slices.Contains(r.Environment.Spec.Scope.Namespaces, everyNamespace)
}

// namespace looks for the namespace of o; missingNamespaces reports each missing one once.
func (r *run) namespace(ctx context.Context, o object.Object) error {
	if len(validation.IsDNS1123Label(o.Ref.Namespace)) > 0 {
		return nil // in none, or one that cannot be
	}
	ref := object.Ref{Kind: "Namespace", Name: o.Ref.Namespace}
	found, err := r.find(ctx, ref)
	if err != nil {
		return err
	}
	switch {
	case found == inSet:
		return r.order(ctx, o, ref, "metadata.namespace", "late-namespace")
	case found == absent:
		r.homeless[ref.Name] = append(r.homeless[ref.Name], o)
	case r.live[ref].meta != nil && r.live[ref].meta.DeletionTimestamp != nil:
		r.homeless[ref.Name] = append(r.homeless[ref.Name], o)
	}
	return nil
}

func (r *run) missingNamespaces() {
	for ns, objects := range r.homeless {
		what, fix := "is not in the cluster and not in the set", "add the Namespace, or correct the name"
		if r.live[object.Ref{Kind: "Namespace", Name: ns}].meta != nil {
			what, fix = "is being deleted", "release again when it is gone"
		}
		r.refuse(objects[0], "no-such-namespace", "metadata.namespace",
			fmt.Sprintf("namespace %s %s; %s in it", ns, what, isAre(len(objects))), fix)
	}
}

func isAre(n int) string {
	if n == 1 {
		return "1 object is"
	}
	return fmt.Sprintf("%d objects are", n)
}
