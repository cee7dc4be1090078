package validate

import (
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nexus-platform/reconciler/object"
)

// ownerMarks are the labels and annotations by which other tools know what is theirs.
var ownerMarks = []struct{ key, owner string }{
	{"meta.helm.sh/release-name", "a Helm release"},
	{"helm.toolkit.fluxcd.io/name", "a Flux HelmRelease"},
	{"kustomize.toolkit.fluxcd.io/name", "a Flux Kustomization"},
	{"argocd.argoproj.io/tracking-id", "Argo CD"},
	{"argocd.argoproj.io/instance", "Argo CD"},
	{"kapp.k14s.io/app", "kapp"},
	{"kluctl.io/discriminator", "kluctl"},
	{"olm.owner", "the Operator Lifecycle Manager"},
	{"fleet.cattle.io/bundle-id", "Fleet"},
}

// ownerManagers are the field managers of the tools that leave no mark.
var ownerManagers = map[string]string{
	"helm": "Helm", "helm-controller": "Flux", "kustomize-controller": "Flux",
	"argocd-controller": "Argo CD", "argocd-application-controller": "Argo CD",
	"terraform": "Terraform", "pulumi-kubernetes": "Pulumi", "kluctl": "kluctl",
}

// owner refuses to take over a live object that is somebody else's, or nobody's, unless it is adopted.
func (r *run) owner(ctx context.Context, o object.Object) error {
	if r.Environment == nil || r.World == nil || r.owned[o.Ref] {
		return nil
	}
	live, err := r.ask(ctx, o.Ref)
	if err != nil {
		return err
	}
	if live.forbidden {
		r.warn(o, "foreign-owner", "", "the environment's service account may not read it, so that nobody knows whether it exists", "grant get on it")
		return nil
	}
	if live.meta == nil || live.meta.Labels[object.EnvironmentLabel] == string(r.Environment.UID) {
		return nil
	}
	holder := holderOf(live.meta)
	adopted := object.Marked(o.Body, object.AdoptAnnotation) || r.adoptedByPolicy(o.Ref)
	mark := fmt.Sprintf("annotation %s: \"true\"", object.AdoptAnnotation)
	switch {
	case holder == "" && adopted:
	case holder == "":
		r.refuse(o, "not-ours", "", "exists and was not made by this environment", "to take it over, write the "+mark)
	case adopted:
		r.warn(o, "foreign-owner", "", "is taken over from "+holder, "see that its former owner lets go of it, or both will fight")
	default:
		r.refuse(o, "foreign-owner", "", "exists and belongs to "+holder, "let its owner release it first, then write the "+mark)
	}
	return nil
}

// holderOf names who else looks after a live object; "" if nobody is known to.
func holderOf(live *metav1.PartialObjectMetadata) string {
	if uid := live.Labels[object.EnvironmentLabel]; uid != "" {
		return "another environment (UID " + uid + ")"
	}
	if c := metav1.GetControllerOf(live); c != nil {
		return fmt.Sprintf("%s/%s, which made it", c.Kind, c.Name)
	}
	for _, m := range ownerMarks {
		for _, marks := range []map[string]string{live.Labels, live.Annotations} {
			if name := marks[m.key]; name != "" {
				return fmt.Sprintf("%s (%s: %s)", m.owner, m.key, name)
			}
		}
	}
	for _, f := range live.ManagedFields {
		if tool := ownerManagers[f.Manager]; tool != "" && f.Subresource == "" {
			return fmt.Sprintf("%s (field manager %s)", tool, f.Manager)
		}
	}
	return ""
}

// adoptedByPolicy reads spec.adopt: Kind/namespace/name or Kind/name, "*" for any part.
func (r *run) adoptedByPolicy(ref object.Ref) bool {
	if r.Policy == nil {
		return false
	}
	for _, entry := range r.Policy.Spec.Adopt {
		parts := strings.Split(entry, "/")
		rest := []string{ref.Name}
		if ref.Namespace != "" {
			rest = []string{ref.Namespace, ref.Name}
		}
		if len(parts) != len(rest)+1 || parts[0] != "*" && !matchesKind(parts[:1], ref.GroupKind()) {
			continue
		}
		match := true
		for i, want := range rest {
			match = match && (parts[i+1] == "*" || parts[i+1] == want)
		}
		if match {
			return true
		}
	}
	return false
}
