package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/object"
)

// grounds are the Namespaces and the definitions of what is restored, where they are the environment's own: somebody may have
// deleted one.
func (u *undoing) grounds() []Action {
	definitions := u.definitions()
	var out []Action
	seen := map[object.Ref]bool{}
	for _, phase := range object.Phases {
		for _, a := range u.changed(phase) {
			for _, ref := range []object.Ref{{Kind: "Namespace", Name: a.Ref.Namespace}, definitions[a.Ref.GroupKind()]} {
				rec, was := u.w.base.inventory[ref]
				if was && !seen[ref] {
					out = append(out, Action{Do: Change, Ref: ref, Version: rec.Version, Phase: object.Infrastructure})
				}
				seen[ref] = true
			}
		}
	}
	return out
}

// definitions of the last good release, by the kind that each is of.
func (u *undoing) definitions() map[schema.GroupKind]object.Ref {
	refs := map[schema.GroupKind]object.Ref{}
	for _, o := range u.w.base.set.Objects {
		if o.Ref.Kind == "CustomResourceDefinition" {
			refs[defines(o)] = o.Ref
		}
	}
	return refs
}

// ground makes a Namespace or a definition of ours that is gone. It looks in every pass, because it may go at any time; one that is
// there is left as it is: this release did not change it, or it is among what is restored.
func (u *undoing) ground(ctx context.Context, a Action) error {
	live, err := u.r.Cluster.Read(ctx, a.Ref, a.Version)
	var gone *kube.NotFoundError
	switch o, ok := u.w.base.set.Get(a.Ref); {
	case errors.As(err, &gone) && ok:
		kind := defines(o)
		u.forget(func(ref object.Ref) bool { return ref.Namespace == a.Ref.Name || ref.GroupKind() == kind })
		return u.write(ctx, o, u.w.base.inventory[a.Ref], nil)
	case errors.As(err, &gone):
		return nil // only the inventory had it: it was on its way out and may go
	case err != nil:
		return fmt.Errorf("look at %s: %w", a.Ref, err)
	case live.GetDeletionTimestamp() != nil:
		return &pending{what: []string{a.Ref.String() + ": " + ending(live)}, after: time.Second}
	}
	return nil
}

// forget makes what went away with its ground to be restored again.
func (u *undoing) forget(went func(object.Ref) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.restored, func(ref object.Ref, _ bool) bool { return went(ref) })
}

// ending says that an object is being deleted, and what keeps it.
func ending(live *unstructured.Unstructured) string {
	text := "is being deleted, to be made again"
	if f := live.GetFinalizers(); len(f) > 0 {
		text += "; its finalizers " + strings.Join(f, ", ") + " keep it"
	}
	return text
}
