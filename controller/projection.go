package controller

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/reconcile"
)

// projection shows the releases of one environment as Release resources and events.
// It writes beside the release, not in its way: what happens within a moment is written once.
type projection struct {
	client      client.Client
	recorder    events.EventRecorder
	log         *slog.Logger
	environment *v1alpha1.Environment
	delay       time.Duration // how long a change may wait for the next one

	mu      sync.Mutex
	pending map[string]*v1alpha1.Release // by name: as it should be shown
	drift   []v1alpha1.Drift             // newest first
	newest  string                       // name of the release that began, or was refused, since begun was asked
	ring    chan struct{}
}

const driftShown = 20

func newProjection(c client.Client, rec events.EventRecorder, log *slog.Logger, env *v1alpha1.Environment) *projection {
	return &projection{
		client: c, recorder: rec, log: log, environment: env, delay: 300 * time.Millisecond,
		pending: map[string]*v1alpha1.Release{}, drift: slices.Clone(env.Status.Drift), ring: make(chan struct{}, 1),
	}
}

// observe is told every event of the reconciler.
func (p *projection) observe(e reconcile.Event) {
	p.emit(e)
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Drift != nil {
		p.drift = slices.Insert(p.drift, 0, *e.Drift)
		p.drift = p.drift[:min(len(p.drift), driftShown)]
	}
	if e.Release == nil || e.Kind == reconcile.EventDetected || e.Kind == reconcile.EventApplied {
		return
	}
	name := releaseName(p.environment.Name, e.Release)
	rel := p.pending[name]
	if rel == nil {
		rel = &v1alpha1.Release{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: p.environment.Namespace}}
		p.pending[name] = rel
	}
	show(rel, p.environment, e)
	if e.Kind == reconcile.EventBegan || e.Release.Outcome == v1alpha1.Refused {
		p.newest = name
	}
	select {
	case p.ring <- struct{}{}:
	default:
	}
}

// releaseName is stable: a release has one resource, however often it is taken over. A
// refused commit has no number of its own.
func releaseName(env string, r *reconcile.ReleaseInfo) string {
	if r.Outcome == v1alpha1.Refused {
		return strings.TrimSuffix(fmt.Sprintf("%s-refused-%.8s", env, r.Commit), "-") // a rollback to nothing has no commit
	}
	return fmt.Sprintf("%s-%d", env, r.Number)
}

// show writes an event into the resource.
func show(rel *v1alpha1.Release, env *v1alpha1.Environment, e reconcile.Event) {
	in := e.Release
	rel.Labels = map[string]string{object.Domain + "environment-name": env.Name}
	rel.Spec = v1alpha1.ReleaseSpec{Environment: env.Name, Number: in.Number, Commit: in.Commit, Kind: in.Kind, By: in.By, Subject: in.Subject}
	s := &rel.Status
	s.ShortCommit = in.Commit[:min(len(in.Commit), 10)]
	began := metav1.NewTime(in.Began)
	s.StartedAt = &began
	if in.Changes != nil {
		s.Changes = in.Changes
	}
	at := metav1.NewTime(e.At)
	switch e.Kind {
	case reconcile.EventPhase:
		closePhase(s, at)
		s.Phase, s.Waiting = e.Phase.String(), nil
		s.Phases = append(s.Phases, v1alpha1.PhaseStatus{Name: s.Phase, Started: at})
	case reconcile.EventWaiting:
		s.Phase, s.Waiting = e.Phase.String(), e.Waiting[:min(len(e.Waiting), 10)]
	case reconcile.EventAborting:
		s.Message, s.Waiting = "undoing: "+e.Message, nil
	case reconcile.EventEnded:
		closePhase(s, at)
		ended := metav1.NewTime(in.Ended)
		s.FinishedAt, s.Waiting = &ended, nil
		s.Outcome, s.Reason, s.Message, s.Object, s.Kept = in.Outcome, in.Reason, in.Message, in.Object, in.Kept
		s.Findings = in.Findings[:min(len(in.Findings), 100)]
		if e.Phase != 0 {
			s.Phase = e.Phase.String()
		}
	}
	releaseConditions(s, at)
}

func closePhase(s *v1alpha1.ReleaseStatus, at metav1.Time) {
	if n := len(s.Phases); n > 0 && s.Phases[n-1].Finished == nil {
		s.Phases[n-1].Finished = &at
	}
}

// releaseConditions are what `kubectl wait --for=condition=Ready` and kstatus read.
func releaseConditions(s *v1alpha1.ReleaseStatus, at metav1.Time) {
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionUnknown, Reason: "InProgress", Message: "in phase " + s.Phase, LastTransitionTime: at}
	stalled := metav1.Condition{Type: v1alpha1.ConditionStalled, Status: metav1.ConditionFalse, Reason: "InProgress", LastTransitionTime: at}
	switch s.Outcome {
	case "":
	case v1alpha1.Succeeded:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionTrue, string(s.Outcome), s.Message
		stalled.Reason = string(s.Outcome)
	default:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, string(s.Outcome), s.Message
		stalled.Status, stalled.Reason, stalled.Message = metav1.ConditionTrue, string(s.Outcome), s.Message
	}
	meta.SetStatusCondition(&s.Conditions, ready)
	meta.SetStatusCondition(&s.Conditions, stalled)
}

// emit tells people by a Kubernetes event what they would want to be told.
func (p *projection) emit(e reconcile.Event) {
	kind, reason, note := corev1.EventTypeNormal, "", e.Message
	switch e.Kind {
	case reconcile.EventBegan:
		reason, note = "ReleaseBegan", fmt.Sprintf("release %d of %.10s began", e.Release.Number, e.Release.Commit)
	case reconcile.EventAborting:
		kind, reason = corev1.EventTypeWarning, "ReleaseUndone"
	case reconcile.EventEnded:
		reason = "Release" + string(e.Release.Outcome)
		if e.Release.Outcome != v1alpha1.Succeeded {
			kind = corev1.EventTypeWarning
		}
	case reconcile.EventDrift:
		kind, reason = corev1.EventTypeWarning, "Drift"
		note = fmt.Sprintf("%s was %s by %s (%s): %s", e.Drift.Object, e.Drift.Verb, e.Drift.Manager, e.Drift.Action, strings.Join(e.Drift.Fields, ", "))
	default:
		return
	}
	p.recorder.Eventf(p.environment, nil, kind, reason, "Reconcile", "%s", truncate(note, 1000))
}

// truncate keeps an event's note within what the API server takes (1 KiB).
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// run writes what was observed until ctx ends.
func (p *projection) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.ring:
		}
		timer := time.NewTimer(p.delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := p.flush(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("show releases", "environment", p.environment.Name, "error", err)
		}
	}
}

// flush writes every Release that changed. One that cannot be written stays pending until the next event.
func (p *projection) flush(ctx context.Context) error {
	p.mu.Lock()
	todo := make([]*v1alpha1.Release, 0, len(p.pending))
	for _, rel := range p.pending {
		todo = append(todo, rel.DeepCopy())
	}
	p.mu.Unlock()
	for _, rel := range todo {
		if err := p.write(ctx, rel); err != nil {
			return fmt.Errorf("%s: %w", rel.Name, err)
		}
		p.mu.Lock()
		if now := p.pending[rel.Name]; now != nil && now.Status.Outcome != "" && equality.Semantic.DeepEqual(now.Status, rel.Status) {
			delete(p.pending, rel.Name)
		}
		p.mu.Unlock()
	}
	return nil
}

func (p *projection) write(ctx context.Context, rel *v1alpha1.Release) error {
	status := rel.Status
	owner := metav1.NewControllerRef(p.environment, v1alpha1.GroupVersion.WithKind("Environment"))
	rel.OwnerReferences = []metav1.OwnerReference{*owner}
	err := p.client.Create(ctx, rel)
	if apierrors.IsAlreadyExists(err) {
		err = p.client.Get(ctx, client.ObjectKeyFromObject(rel), rel)
		if err == nil && len(status.Phases) < len(rel.Status.Phases) {
			status.Phases = rel.Status.Phases // of before a restart
		}
	}
	if err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(rel.Status, status) {
		return nil
	}
	rel.Status = status
	return p.client.Status().Update(ctx, rel)
}

// begun returns the name of the release that began, or was refused, since it was asked last.
func (p *projection) begun() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := p.newest
	p.newest = ""
	return name
}

// newestDrift is what the Environment's status shows.
func (p *projection) newestDrift() []v1alpha1.Drift {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.drift)
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
