package validate

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/validate/kinds"
	"github.com/nexus-platform/reconciler/validate/needs"
)

// references checks that all that a pod needs to start is there when it does.
func (r *run) references(ctx context.Context, o object.Object) error {
	pod, err := needs.PodOf(o)
	if err != nil { // which may hold the value of a field, so it is not shown
		r.refuse(o, "malformed", pod.Field, "is missing, or cannot be read as the spec of a pod", "correct it")
		return nil //nolint:nilerr // it is in the finding
	}
	if pod == nil {
		return nil
	}
	r.hostAccess(o, &pod.Spec, pod.Field)
	seen := map[object.Ref]bool{}
	for _, n := range needs.OfPod(o.Ref.Namespace, pod) {
		if r.keptBack(o, n) {
			continue
		}
		if n.Key != "" {
			if err := r.key(ctx, o, n); err != nil {
				return err
			}
		}
		if seen[n.Ref] {
			continue // one finding for each object, not for each mention
		}
		seen[n.Ref] = true
		if err := r.reference(ctx, o, n); err != nil {
			return err
		}
	}
	return nil
}

// keptBack refuses that a pod uses what the reconciler or the Environment keeps for itself.
func (r *run) keptBack(o object.Object, n needs.Need) bool {
	what := r.reserved[n.Ref]
	switch {
	case n.Ref.Kind == "ServiceAccount" && n.Ref.Name == systemAccount:
		r.refuse(o, "reserved", n.Field, "is the name of the reconciler's own service account", "use another one")
	case what != "" && n.Ref.Kind == "ServiceAccount":
		r.warn(o, "reserved", n.Field, "runs the pod as "+what+", with all that it may do", "use a service account of its own")
	case what != "":
		r.refuse(o, "reserved", n.Field, n.Ref.String()+" is "+what, "use another Secret")
	default:
		return false
	}
	return true
}

func (r *run) reference(ctx context.Context, o object.Object, n needs.Need) error {
	if alwaysThere(n.Ref) || r.claimed(n.Ref) {
		return nil
	}
	found, err := r.find(ctx, n.Ref)
	if err != nil {
		return err
	}
	refuse, fix := r.refuse, "add it, or correct the name"
	switch {
	case n.Soft:
		refuse = r.warn
	case n.Ref.Kind == "ConfigMap" || n.Ref.Kind == "Secret":
		fix = "add it, correct the name, or write optional: true where that is meant"
	}
	switch found {
	case inSet:
		return r.order(ctx, o, n.Ref, n.Field, "late-reference")
	case leaving:
		refuse(o, "missing-reference", n.Field, fmt.Sprintf("%s leaves the cluster with this commit", n.Ref), "keep it in the repository, or remove the reference")
	case absent:
		if maker, ok := r.maker(n.Ref); ok {
			r.warn(o, "missing-reference", n.Field, fmt.Sprintf("%s is not there yet; %s is expected to make it", n.Ref, maker), "")
			return nil
		}
		refuse(o, "missing-reference", n.Field, fmt.Sprintf("%s is neither in the set nor in the cluster", n.Ref), fix)
	case unknown:
		if _, ok := r.maker(n.Ref); !ok {
			r.warn(o, "missing-reference", n.Field, fmt.Sprintf("%s is not in the set, and cannot be checked without a cluster", n.Ref), "")
		}
	}
	return nil
}

// alwaysThere knows what the control plane puts into every namespace.
func alwaysThere(ref object.Ref) bool {
	return ref.Kind == "ConfigMap" && ref.Name == "kube-root-ca.crt" || ref.Kind == "ServiceAccount" && ref.Name == "default"
}

// claimed reports a claim that a StatefulSet of the set makes from a template: template-statefulset-ordinal.
func (r *run) claimed(ref object.Ref) bool {
	if ref.Kind != "PersistentVolumeClaim" {
		return false
	}
	cut := strings.LastIndex(ref.Name, "-")
	if cut < 0 {
		return false
	}
	if _, err := strconv.ParseUint(ref.Name[cut+1:], 10, 31); err != nil {
		return false
	}
	for _, o := range r.set.Objects {
		if o.Ref.Kind != "StatefulSet" || o.Ref.Namespace != ref.Namespace {
			continue
		}
		for _, t := range at[[]any](o, "spec", "volumeClaimTemplates") {
			m, _ := t.(map[string]any)
			meta, _ := m["metadata"].(map[string]any)
			if name, _ := meta["name"].(string); name+"-"+o.Ref.Name == ref.Name[:cut] {
				return true
			}
		}
	}
	return false
}

// relations warns of references that do nothing until their target exists: the object
// itself is accepted, and its target may come from elsewhere.
func (r *run) relations(ctx context.Context, o object.Object) error {
	for _, n := range needs.Of(o) {
		found, err := r.find(ctx, n.Ref)
		if err != nil {
			return err
		}
		switch found {
		case absent:
			r.warn(o, "missing-target", n.Field, fmt.Sprintf("%s is neither in the set nor in the cluster", n.Ref), "add it, or correct the name")
		case leaving:
			r.warn(o, "missing-target", n.Field, fmt.Sprintf("%s leaves the cluster with this commit", n.Ref), "keep it in the repository, or remove the reference")
		case unknown:
			r.warn(o, "missing-target", n.Field, fmt.Sprintf("%s is not in the set, and cannot be checked without a cluster", n.Ref), "")
		}
	}
	return nil
}

// maker finds an object of the set that will probably make ref: an operator's resource
// that names it or is named like it, or a Job with the name in its arguments. Operators
// are many, so this is a guess, and makes a warning of an error at most.
func (r *run) maker(ref object.Ref) (object.Ref, bool) {
	for _, o := range r.set.Objects {
		if o.Ref.Namespace != "" && o.Ref.Namespace != ref.Namespace {
			continue
		}
		switch {
		case o.Ref.Kind == "Job":
			if needs.Mentions(at[any](o, "spec"), func(s string) bool { return strings.Contains(s, ref.Name) }) {
				return o.Ref, true
			}
		case !kinds.BuiltIn(o.Body.GroupVersionKind()):
			if o.Ref.Name == ref.Name || strings.HasPrefix(ref.Name, o.Ref.Name+"-") ||
				needs.Mentions(at[any](o, "spec"), func(s string) bool { return s == ref.Name }) {
				return o.Ref, true
			}
		}
	}
	return object.Ref{}, false
}

// key checks that a ConfigMap or Secret of the set has the key that a pod reads. One
// without any data is filled by somebody else, and so may be a key that has another field manager.
func (r *run) key(ctx context.Context, o object.Object, n needs.Need) error {
	target, ok := r.set.Get(n.Ref)
	if !ok || at[string](target, "type") == "kubernetes.io/service-account-token" {
		return nil
	}
	keys := 0
	for _, field := range []string{"data", "binaryData", "stringData"} {
		values := at[map[string]any](target, field)
		if _, has := values[n.Key]; has {
			return nil
		}
		keys += len(values)
	}
	if keys == 0 {
		return nil
	}
	live, err := r.ask(ctx, n.Ref)
	if err != nil {
		return err
	}
	if live.meta != nil {
		for _, f := range live.meta.ManagedFields {
			if f.Manager != object.FieldManager && f.FieldsV1 != nil && bytes.Contains(f.FieldsV1.GetRawBytes(), []byte(strconv.Quote("f:"+n.Key))) {
				return nil
			}
		}
	}
	r.refuse(o, "missing-key", n.Field, fmt.Sprintf("%s has no key %q", n.Ref, n.Key), "add the key, correct the name, or write optional: true where that is meant")
	return nil
}
