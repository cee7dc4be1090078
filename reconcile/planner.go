package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/validate/typed"
)

// planner turns a candidate into a plan. It only reads: the dry-run of every object
// that would change is how the API server is asked (S2 of the protocol).
type planner struct {
	r         *Reconciler
	candidate *candidate
	base      *world // what is deployed; empty before the first release
	ignored   func(object.Ref) []string
	arrivals  arrivals

	mu       sync.Mutex
	actions  []Action
	images   []*unstructured.Unstructured // of what is adopted, as it was
	findings []string
}

// plan computes what a release of c would do. What is wrong is a *RefusedError with
// every finding; any other error is the world's.
func (r *Reconciler) plan(ctx context.Context, h journal.Head, c *candidate) (*Plan, []*unstructured.Unstructured, error) {
	base, err := r.deployed(ctx, h)
	if err != nil {
		return nil, nil, err
	}
	if err := r.watch(ctx, c.set, base); err != nil {
		return nil, nil, err
	}
	failpoint.Here(failpoint.PlanBegin)
	if unfounded(h) {
		base.inventory = r.left().ByRef()
	}
	changed := r.changes(base)
	r.markDirty(changed) // health and strays are looked at when the environment rests
	if err := r.look(base, changed); err != nil {
		return nil, nil, err
	}
	p := &planner{r: r, candidate: c, base: base, ignored: foreignFields(c.set, c.policy)}
	if p.arrivals, err = r.arrivals(ctx, c.set); err != nil {
		return nil, nil, err
	}
	if err := each(ctx, c.set.Objects, p.object); err != nil {
		return nil, nil, err
	}
	if err := p.offline(ctx); err != nil {
		return nil, nil, err
	}
	p.prunes()
	if len(p.findings) > 0 {
		slices.Sort(p.findings)
		return nil, nil, &RefusedError{Reason: "DryRunFailed", Findings: p.findings}
	}
	p.order()
	plan := &Plan{
		Environment: r.Environment.Name, Number: h.Number + 1, Commit: c.info.Commit, Set: c.set.Digest,
		Actions: p.actions, Warnings: c.warnings, Baseline: r.baseline(base),
	}
	if h.Good != nil {
		plan.Base = h.Good.Commit
	}
	touched := plan.byRef()
	for _, o := range c.set.Objects {
		if _, ok := touched[o.Ref]; !ok {
			plan.Unchanged++
		}
	}
	if err := p.guard(); err != nil && c.info.Kind == KindDeploy {
		return plan, nil, err
	}
	return plan, p.images, nil
}

// offline checks what the API server cannot judge yet by its schema: the built-in one, or that of its definition in the set.
func (p *planner) offline(ctx context.Context) error {
	late := map[object.Ref]bool{}
	for _, a := range p.actions {
		late[a.Ref] = a.Late
	}
	findings, err := typed.Check(ctx, p.candidate.set, func(ref object.Ref) bool { return late[ref] })
	for _, f := range findings.Errors() {
		p.findings = append(p.findings, f.String())
	}
	return err
}

// object plans one object of the set.
func (p *planner) object(ctx context.Context, o object.Object) error {
	rec, owned := p.base.inventory[o.Ref]
	live, here := p.r.Cluster.Live(o.Ref)
	if !here && owned && rec.Rendered == o.Digest && endsItself(o.Body) {
		return nil
	}
	phase, err := object.PhaseOf(o.Body, owned)
	if err != nil {
		p.fault(o, err)
		return nil
	}
	gvk := o.Body.GroupVersionKind()
	a := Action{Do: Change, Ref: o.Ref, Version: gvk.Version, Phase: phase}
	if owned && rec.Rendered == o.Digest {
		a.Repair = true
		if here && !p.drifted(o) {
			return nil
		}
	}
	if here && live.Deleting { // the release waits until it is gone
		a.Do = Create
		p.add(a)
		return nil
	}
	if !here {
		a.Do, a.Late = Create, p.arrivals.judgedLate(o)
		if a.Late {
			p.add(a)
			return nil
		}
		return p.create(ctx, o, a)
	}
	if !owned && !kube.AppliedByUs(live.Object()) { // it has our label, but nobody knows why
		return p.adopt(ctx, o, a)
	}
	return p.change(ctx, o, a, live)
}

// drifted reports drift that a release heals on its way.
func (p *planner) drifted(o object.Object) bool {
	_, differs := p.r.drifted[o.Ref]
	return differs && driftMode(p.candidate.policy, o.Body) == driftHeal
}

func (p *planner) create(ctx context.Context, o object.Object, a Action) error {
	_, err := p.r.Cluster.DryRun(ctx, o.Body, kube.Pre{Create: true})
	var exists *kube.ExistsError
	if errors.As(err, &exists) {
		return p.adopt(ctx, o, a)
	}
	if err != nil && unserved(err) && p.arrivals.defined[o.Ref.GroupKind()] { // its definition is on its way to or from the cluster
		a.Late, err = true, nil
	}
	if err != nil {
		return p.faultOrWorld(o, err)
	}
	p.add(a)
	return nil
}

// adopt plans to take over an object that exists and is not of our inventory.
func (p *planner) adopt(ctx context.Context, o object.Object, a Action) error {
	live, err := p.r.Cluster.Read(ctx, o.Ref, a.Version)
	if err != nil {
		return p.faultOrWorld(o, err)
	}
	if !mayAdopt(p.candidate.policy, o.Body, live, string(p.r.Environment.UID)) {
		p.fault(o, fmt.Errorf("exists already and is not managed by this environment%s; to take it over, annotate it in Git with %s: \"true\" or list it under spec.adopt of release.yaml",
			ownedBy(live), object.AdoptAnnotation))
		return nil
	}
	a.Do, a.UID = Adopt, live.GetUID()
	result, err := p.r.Cluster.DryRun(ctx, o.Body, kube.PreOf(live, false))
	if err != nil {
		return p.faultOrWorld(o, err)
	}
	a.Fields = kube.Diff(live, result)
	p.mu.Lock()
	p.images = append(p.images, live)
	p.mu.Unlock()
	p.add(a)
	return nil
}

// ownedBy names who manages a foreign object, where its marks tell.
func ownedBy(live *unstructured.Unstructured) string {
	labels, notes := live.GetLabels(), live.GetAnnotations()
	switch {
	case labels[object.EnvironmentLabel] != "":
		return " (another environment does: " + labels[object.EnvironmentLabel] + ")"
	case notes["meta.helm.sh/release-name"] != "":
		return " (Helm does: release " + notes["meta.helm.sh/release-name"] + ")"
	case labels["kustomize.toolkit.fluxcd.io/name"] != "":
		return " (Flux does: Kustomization " + labels["kustomize.toolkit.fluxcd.io/name"] + ")"
	case notes["argocd.argoproj.io/tracking-id"] != "":
		return " (Argo CD does: " + notes["argocd.argoproj.io/tracking-id"] + ")"
	}
	for _, f := range live.GetManagedFields() {
		return " (last written by " + f.Manager + ")"
	}
	return ""
}

func (p *planner) change(ctx context.Context, o object.Object, a Action, live *kube.Live) error {
	a.UID = live.UID
	was := live.Object()
	result, err := p.r.Cluster.DryRun(ctx, kube.Strip(o.Body, p.ignored(o.Ref), was), kube.PreOf(was, true))
	var invalid *kube.InvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Immutable && object.Marked(o.Body, object.RecreateAnnotation) && !bearsData(p.candidate.policy, o.Ref.GroupKind()):
		a.Do, a.Note = Recreate, "an immutable field changes: deleted and made again"
		p.add(a)
		return nil
	case errors.As(err, &invalid) && invalid.Immutable:
		p.fault(o, fmt.Errorf("%w; to allow its deletion and recreation, annotate it with %s: \"true\"", err, object.RecreateAnnotation))
		return nil
	case err != nil:
		return p.faultOrWorld(o, err)
	}
	a.Fields = kube.Diff(was, result)
	a.Restart = templateChanged(was, result)
	p.add(a)
	return nil
}

// templateChanged reports that the pods of a workload will be replaced.
func templateChanged(was, will *unstructured.Unstructured) bool {
	switch was.GetKind() {
	case "Deployment", "StatefulSet", "DaemonSet":
	default:
		return false
	}
	a, _, _ := unstructured.NestedMap(was.Object, "spec", "template")
	b, _, _ := unstructured.NestedMap(will.Object, "spec", "template")
	return !equality.Semantic.DeepEqual(a, b)
}

// prunes plans what leaves: what the inventory has and the set has not.
func (p *planner) prunes() {
	for _, rec := range sortedRecords(p.base.inventory) {
		if _, stays := p.candidate.set.Get(rec.Ref); stays {
			continue
		}
		live, here := p.r.Cluster.Live(rec.Ref)
		if !here {
			continue
		}
		mark := live.Object().GetAnnotations()[object.PruneAnnotation]
		a := Action{Do: Prune, Ref: rec.Ref, Version: rec.Version, Phase: max(rec.Phase, object.Infrastructure), UID: live.UID, Early: mark == "before"}
		switch {
		case mark == "never":
			a.Do, a.Note = Keep, "marked "+object.PruneAnnotation+": never"
		case bearsData(p.candidate.policy, rec.Ref.GroupKind()) && mark != "allow":
			a.Do, a.Note = Keep, "bears data; to delete it with its last commit, annotate it with "+object.PruneAnnotation+": allow first"
		case a.Early:
			a.Note = "deleted before its successor comes"
		}
		p.add(a)
	}
}

// guard refuses a release that would delete more than its policy allows. To lift the limits is a change that a review sees.
func (p *planner) guard() error {
	pruned := 0
	for _, a := range p.actions {
		if a.Do == Prune {
			pruned++
		}
	}
	limits := p.candidate.policy.Spec.Prune
	managed := len(p.base.inventory)
	percent := 0
	if managed > 0 {
		percent = pruned * 100 / managed
	}
	switch {
	case pruned > int(*limits.MaxCount):
	case pruned > smallPrune && percent > int(*limits.MaxPercent):
	default:
		return nil
	}
	return &RefusedError{Reason: "PruneGuard", Findings: []string{fmt.Sprintf(
		"this commit would delete %d of %d objects (%d %%); the policy allows %d objects and %d %%: if that is meant, raise spec.prune in release.yaml",
		pruned, managed, percent, *limits.MaxCount, *limits.MaxPercent)}}
}

// smallPrune is how many deletions no percentage guards: a quarter of a small environment is soon reached.
const smallPrune = 5

// order brings the actions into the order in which they are carried out: early prunes, then
// phase by phase in the set's order, at the end the prunes in reverse.
func (p *planner) order() {
	position := make(map[object.Ref]int, p.candidate.set.Len())
	for i, o := range p.candidate.set.Objects {
		position[o.Ref] = i
	}
	late := func(a Action) bool { return (a.Do == Prune || a.Do == Keep) && !a.Early }
	slices.SortFunc(p.actions, func(a, b Action) int {
		switch {
		case late(a) && late(b):
			return cmp.Or(cmp.Compare(b.Phase, a.Phase), b.Ref.Compare(a.Ref))
		case late(a):
			return 1
		case late(b):
			return -1
		}
		return cmp.Or(cmp.Compare(a.Phase, b.Phase), boolCompare(b.Early, a.Early), cmp.Compare(position[a.Ref], position[b.Ref]), a.Ref.Compare(b.Ref))
	})
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (p *planner) add(a Action) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.actions = append(p.actions, a)
}

func (p *planner) fault(o object.Object, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.findings = append(p.findings, fmt.Sprintf("%s: %s: %v", o.Origin, o.Ref, err))
}

// faultOrWorld notes what is the commit's fault and returns what is the world's.
func (p *planner) faultOrWorld(o object.Object, err error) error {
	var gone *kube.NotFoundError
	var changed *kube.ConflictError
	var forbidden *kube.ForbiddenError
	switch {
	case errors.As(err, &gone) && gone.Namespace == "", errors.As(err, &changed) && len(changed.Fields) == 0,
		errors.As(err, &forbidden) && forbidden.Terminating:
		return fmt.Errorf("%w: %s %w", errMoved, o.Ref, err)
	}
	if Judge(err) == Fail {
		p.fault(o, err)
		return nil
	}
	return fmt.Errorf("dry-run of %s: %w", o.Ref, err)
}

func sortedRecords(inventory map[object.Ref]object.Record) object.Inventory {
	inv := make(object.Inventory, 0, len(inventory))
	for _, rec := range inventory {
		inv = append(inv, rec)
	}
	return inv.Sorted()
}

// stamp marks what a release creates (protocol rule 5).
func stamp(environment types.UID, epoch int64) string {
	return fmt.Sprintf("%s/%d", environment, epoch)
}
