package reconcile

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/health"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/object"
)

const driftHeal = v1alpha1.DriftHeal

// deployed returns what the last good release declared, with all that is owned now.
// Before the first release the set is empty; the inventory need not be.
func (r *Reconciler) deployed(ctx context.Context, h journal.Head) (*world, error) {
	mark := h.Good
	if mark == nil {
		mark = &journal.Mark{}
	}
	w := &world{of: identity(mark, h.Inventory)}
	if r.good != nil && r.good.of == w.of {
		return r.good, nil
	}
	var err error
	if w.set, err = r.loadSet(ctx, mark.Set); err != nil {
		return nil, fmt.Errorf("load the last good set: %w", err)
	}
	policy, err := r.loadBlob(ctx, mark.Policy)
	if err != nil {
		return nil, fmt.Errorf("load the last good policy: %w", err)
	}
	if w.policy, err = v1alpha1.ParsePolicy(policy); err != nil {
		return nil, fmt.Errorf("release.yaml of the last good commit %.10s: %w", mark.Commit, err)
	}
	if w.judge, err = newJudge(w.policy, r.Now); err != nil {
		return nil, err
	}
	inv, err := r.loadInventory(ctx, h.Inventory)
	if err != nil {
		return nil, fmt.Errorf("load the inventory: %w", err)
	}
	w.inventory = inv.ByRef()
	w.ignored = foreignFields(w.set, w.policy)
	r.good, r.looked, r.drifted, r.unwell = w, false, nil, nil // what was seen of another world says nothing of this one
	return w, nil
}

// identity says which world a head describes. What this process has in mind may be another one: the answer to the write that
// made the new one the last good may have been lost (protocol rule 3).
func identity(m *journal.Mark, inventory string) string {
	return m.Set + "/" + m.Policy + "/" + inventory
}

func (r *Reconciler) loadInventory(ctx context.Context, digest string) (object.Inventory, error) {
	if digest == "" {
		return nil, nil
	}
	b, err := r.Journal.Load(ctx, digest)
	if err != nil {
		return nil, err
	}
	return b.Inventory()
}

func (r *Reconciler) storeInventory(ctx context.Context, inv object.Inventory) (string, error) {
	b, err := journal.InventoryBundle(inv)
	if err != nil {
		return "", err
	}
	digest, err := r.Journal.Store(ctx, b)
	if err != nil {
		return "", fmt.Errorf("store the inventory: %w", err)
	}
	return digest, nil
}

// watch makes sure that every kind of the sets is watched.
func (r *Reconciler) watch(ctx context.Context, set *object.Set, base *world) error {
	seen := map[schema.GroupVersionKind]bool{}
	var kinds []schema.GroupVersionKind
	add := func(gvk schema.GroupVersionKind) {
		if !seen[gvk] {
			seen[gvk] = true
			kinds = append(kinds, gvk)
		}
	}
	for _, o := range set.Objects {
		add(o.Body.GroupVersionKind())
	}
	applied := map[schema.GroupKind]bool{}
	for gvk := range seen {
		applied[gvk.GroupKind()] = true
	}
	for ref, rec := range base.inventory {
		if !applied[ref.GroupKind()] { // the version of the set is watched, not a second one
			add(ref.GroupKind().WithVersion(rec.Version))
		}
	}
	if err := r.Cluster.Watch(ctx, kinds); err != nil {
		return fmt.Errorf("watch the managed kinds: %w", err)
	}
	return nil
}

// inert kinds are what they were asked to be as soon as they are stored.
var inert = map[string]bool{
	"ConfigMap": true, "Secret": true, "ServiceAccount": true, "LimitRange": true, "ResourceQuota": true,
	"Role.rbac.authorization.k8s.io": true, "RoleBinding.rbac.authorization.k8s.io": true,
	"ClusterRole.rbac.authorization.k8s.io": true, "ClusterRoleBinding.rbac.authorization.k8s.io": true,
	"NetworkPolicy.networking.k8s.io": true, "PriorityClass.scheduling.k8s.io": true, "StorageClass.storage.k8s.io": true,
}

// isInert reports kinds without a state of their own, unless a rule of the policy judges them.
func isInert(ref object.Ref, p *v1alpha1.ReleasePolicy) bool {
	if !inert[ref.GroupKind().String()] {
		return false
	}
	for _, rule := range p.Spec.Health.Rules {
		if rule.Kind == ref.Kind && rule.Group == ref.Group {
			return false
		}
	}
	return true
}

// baseline is what is unhealthy before a release.
func (r *Reconciler) baseline(base *world) map[string]health.State {
	ill := map[string]health.State{}
	for ref := range base.inventory {
		if isInert(ref, base.policy) {
			continue
		}
		if v := r.verdict(base.judge, ref, health.Expectation{}); v.State != health.Healthy {
			ill[ref.String()] = v.State
		}
	}
	return ill
}

// verdict judges an object as the watch cache has it.
func (r *Reconciler) verdict(j *health.Judge, ref object.Ref, want health.Expectation) health.Verdict {
	live, ok := r.Cluster.Live(ref)
	if !ok {
		return health.Verdict{Ref: ref, State: health.Missing, Reason: "Missing", Message: "is not in the cluster"}
	}
	return j.Judge(live.Object(), want, r.Cluster)
}

// Objects is how many objects the last good release declared, as far as this process knows.
func (r *Reconciler) Objects() int {
	if r.good == nil {
		return 0
	}
	return r.good.set.Len()
}
