package validate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nexus-platform/reconciler/object"
)

const (
	dependsField = "metadata.annotations[" + object.DependsOnAnnotation + "]"
	phaseField   = "metadata.annotations[" + object.PhaseAnnotation + "]"
)

// dependencies checks the phase of o, and that what it depends on comes no later and is there at all.
func (r *run) dependencies(ctx context.Context, o object.Object) error {
	if _, err := r.phase(ctx, o); errors.As(err, new(*phaseError)) {
		r.refuse(o, "phase", phaseField, strings.TrimPrefix(err.Error(), "annotation "+object.PhaseAnnotation+": "), "correct it, or remove the annotation")
	} else if err != nil {
		return err
	}
	needs, err := object.DependsOn(o.Body)
	if err != nil {
		r.refuse(o, "depends-on", dependsField, strings.TrimPrefix(err.Error(), "annotation "+object.DependsOnAnnotation+": "), "write it so, separated by commas")
		return nil
	}
	for _, need := range needs {
		found, err := r.find(ctx, need)
		if err != nil {
			return err
		}
		switch found {
		case inSet:
			if err := r.order(ctx, o, need, dependsField, "depends-on"); err != nil {
				return err
			}
		case absent:
			r.refuse(o, "depends-on", dependsField, fmt.Sprintf("%s is neither in the set nor in the cluster", need), "correct the reference (group/namespaces/namespace/kind/name), or remove it")
		case leaving:
			r.refuse(o, "depends-on", dependsField, fmt.Sprintf("%s leaves the cluster with this commit", need), "remove the reference, or keep the object")
		case unknown:
			r.warn(o, "depends-on", dependsField, fmt.Sprintf("%s is not in the set, and cannot be checked without a cluster", need), "")
		}
	}
	return nil
}

// phaseError says that the phase annotation of an object cannot be read.
type phaseError struct{ error }

func (r *run) phase(ctx context.Context, o object.Object) (object.Phase, error) {
	exists := false
	if o.Ref.Group == "" && o.Ref.Kind == "Service" || o.Ref.Kind == "NetworkPolicy" { // the only kinds whose phase depends on it
		var err error
		if exists, err = r.exists(ctx, o.Ref); err != nil {
			return 0, err
		}
	}
	p, err := object.PhaseOf(o.Body, exists)
	if err != nil {
		return 0, &phaseError{err}
	}
	return p, nil
}

// order refuses that o needs an object of the set which is applied in a later phase: o's phase would wait for it in vain.
func (r *run) order(ctx context.Context, o object.Object, need object.Ref, field, rule string) error {
	target, ok := r.set.Get(need)
	if !ok {
		return nil
	}
	mine, err := r.phase(ctx, o)
	if err != nil {
		return ignorePhase(err)
	}
	theirs, err := r.phase(ctx, target)
	if err != nil {
		return ignorePhase(err)
	}
	if theirs > mine {
		r.refuse(o, rule, field, fmt.Sprintf("needs %s, which comes in the later phase %s (this one: %s)", need, theirs, mine),
			"correct the "+object.PhaseAnnotation+" annotation of one of them")
	}
	return nil
}

// ignorePhase drops the errors that dependencies reports where they are.
func ignorePhase(err error) error {
	if errors.As(err, new(*phaseError)) {
		return nil
	}
	return err
}

// cycles reports every circle of dependencies once, at its first object.
func (r *run) cycles() {
	var bound []object.Object
	for _, o := range r.set.Objects {
		if needs, err := object.DependsOn(o.Body); err == nil && len(needs) > 0 {
			bound = append(bound, o)
		}
	}
	for {
		var cycle *object.CycleError
		if _, err := object.Waves(bound); !errors.As(err, &cycle) {
			return
		}
		first, _ := r.set.Get(cycle.Path[0])
		r.refuse(first, "depends-on", dependsField, cycle.Error(), "remove one of the references")
		bound = slices.DeleteFunc(bound, func(o object.Object) bool { return o.Ref == first.Ref }) // the circles that it is not part of are still there
	}
}
