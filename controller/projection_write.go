package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/object"
)

// run writes what was observed until ctx ends, and then what is left.
func (p *projection) run(ctx context.Context) {
	again := backoff.NewExponentialBackOff()
	again.InitialInterval, again.MaxInterval = time.Second, 30*time.Second
	for {
		select {
		case <-ctx.Done():
			p.last(ctx)
			return
		case <-p.ring:
		}
		wait := p.delay
		for wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
				p.last(ctx)
				return
			case <-timer.C:
			}
			wait = 0
			if err := p.flush(ctx); err == nil {
				again.Reset()
			} else if ctx.Err() == nil {
				wait = again.NextBackOff()
				p.log.Warn("show releases", "environment", p.environment.Name, "namespace", p.environment.Namespace, "error", err)
			}
		}
	}
}

// partingTime is how long a process that ends may take to show what it knows.
const partingTime = 2 * time.Second

func (p *projection) last(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), partingTime)
	defer cancel()
	if err := p.flush(ctx); err != nil {
		p.log.Debug("show releases at the end", "environment", p.environment.Name, "namespace", p.environment.Namespace, "error", err)
	}
}

func (p *projection) nudge() {
	select {
	case p.ring <- struct{}{}:
	default:
	}
}

// flush writes every Release that changed. What cannot be written stays to be written.
func (p *projection) flush(ctx context.Context) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.Lock()
	todo := make([]shownRelease, 0, len(p.shown))
	for _, rel := range p.shown {
		if !rel.written() {
			todo = append(todo, shownRelease{want: rel.want.DeepCopy(), have: rel.have, recalled: rel.recalled})
		}
	}
	p.mu.Unlock()
	for _, rel := range todo {
		have, err := p.write(ctx, rel)
		if err != nil {
			return fmt.Errorf("%s: %w", rel.want.Name, err)
		}
		p.mu.Lock()
		if now := p.shown[rel.want.Name]; now != nil {
			now.have = have
			if len(now.want.Status.Phases) < len(have.Status.Phases) {
				now.want.Status.Phases = have.Status.Phases // of before a restart
			}
			if now.want.Status.Outcome != "" && now.written() {
				delete(p.shown, rel.want.Name)
			}
		}
		p.mu.Unlock()
	}
	return nil
}

// write makes a Release what it should be, and returns it as the API server has it.
func (p *projection) write(ctx context.Context, rel shownRelease) (*v1alpha1.Release, error) {
	if rel.recalled {
		if out, err := p.merge(ctx, rel.want); !apierrors.IsNotFound(err) {
			return out, err
		}
	}
	out := rel.want.DeepCopy()
	if rel.have == nil {
		out.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(p.environment, v1alpha1.GroupVersion.WithKind("Environment"))}
		if err := p.client.Create(ctx, out); apierrors.IsAlreadyExists(err) {
			return p.merge(ctx, rel.want)
		} else if err != nil {
			return nil, err
		}
	} else {
		out.ResourceVersion = rel.have.ResourceVersion
	}
	out.Status = rel.want.Status
	err := p.client.Status().Update(ctx, out)
	if apierrors.IsConflict(err) {
		return p.merge(ctx, rel.want)
	}
	return out, err
}

// merge updates a Release that is there, with the phases that it has from before a restart.
func (p *projection) merge(ctx context.Context, want *v1alpha1.Release) (*v1alpha1.Release, error) {
	var out v1alpha1.Release
	if err := p.client.Get(ctx, client.ObjectKeyFromObject(want), &out); err != nil {
		return nil, err
	}
	status := want.Status
	if len(status.Phases) < len(out.Status.Phases) {
		status.Phases = out.Status.Phases
	}
	if equality.Semantic.DeepEqual(out.Status, status) || out.Status.Outcome != "" && out.Status.Outcome == status.Outcome && out.Status.FinishedAt.Equal(status.FinishedAt) {
		return &out, nil
	}
	out.Status = status
	return &out, p.client.Status().Update(ctx, &out)
}

// forget deletes the oldest Release resources beyond the limit.
func (p *projection) forget(ctx context.Context, limit int) error {
	var list v1alpha1.ReleaseList
	err := p.client.List(ctx, &list, client.InNamespace(p.environment.Namespace), client.MatchingLabels{object.Domain + "environment-name": p.environment.Name})
	if err != nil || len(list.Items) <= limit {
		return err
	}
	slices.SortFunc(list.Items, func(a, b v1alpha1.Release) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Spec.Number, b.Spec.Number))
	})
	for i := range list.Items[:len(list.Items)-limit] {
		if list.Items[i].Status.Outcome == "" {
			continue
		}
		if err := p.client.Delete(ctx, &list.Items[i]); client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	return nil
}
