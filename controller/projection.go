package controller

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/reconcile"
)

// projection shows the releases of one environment as Release resources, events and log lines.
// It writes beside the release, not in its way: what happens within a moment is written once.
type projection struct {
	client      client.Client
	recorder    events.EventRecorder
	log         *slog.Logger
	environment *v1alpha1.Environment
	delay       time.Duration // how long a change may wait for the next one

	mu      sync.Mutex
	shown   map[string]*shownRelease // by name
	drift   []v1alpha1.Drift         // newest first
	newest  string                   // name of the release that began, or was refused, since begun was asked
	ended   bool                     // one ended since settle was asked
	checked bool                     // what a process before this one left behind was looked at
	ring    chan struct{}

	writing sync.Mutex // one flush at a time
}

// shownRelease is one Release resource.
type shownRelease struct {
	want *v1alpha1.Release
	have *v1alpha1.Release // as the API server has it; nil: not written by this process
	// recalled: of a process before this one, which has shown it most likely.
	recalled bool
}

func (r *shownRelease) written() bool {
	return r.have != nil && equality.Semantic.DeepEqual(r.want.Status, r.have.Status)
}

const driftShown = 20

func newProjection(c client.Client, rec events.EventRecorder, log *slog.Logger, env *v1alpha1.Environment) *projection {
	return &projection{
		client: c, recorder: rec, log: log, environment: env, delay: 300 * time.Millisecond,
		shown: map[string]*shownRelease{}, drift: slices.Clone(env.Status.Drift), ring: make(chan struct{}, 1),
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
	if e.Release == nil || e.Kind == reconcile.EventDetected || e.Kind == reconcile.EventRendered || e.Kind == reconcile.EventApplied {
		return
	}
	name := releaseName(p.environment.Name, e.Release)
	rel := p.shown[name]
	if rel == nil {
		rel = &shownRelease{want: &v1alpha1.Release{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: p.environment.Namespace}}}
		p.shown[name] = rel
	}
	show(rel.want, p.environment, e)
	p.ended = p.ended || e.Kind == reconcile.EventEnded
	if e.Kind == reconcile.EventBegan || e.Release.Outcome == v1alpha1.Refused {
		p.newest = name
	}
	p.nudge()
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
	began := seconds(in.Began)
	s.StartedAt = &began
	if in.Changes != nil {
		s.Changes = in.Changes
	}
	at := seconds(e.At)
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
		ended := seconds(in.Ended)
		s.FinishedAt, s.Waiting = &ended, nil
		s.Outcome, s.Reason, s.Message, s.Object, s.Kept = in.Outcome, in.Reason, in.Message, in.Object, in.Kept
		s.Findings = in.Findings[:min(len(in.Findings), 100)]
		if e.Phase != 0 {
			s.Phase = e.Phase.String()
		}
	}
	releaseConditions(s, at)
}

// seconds is a time as the API server keeps it, so that what was written can be compared with what is wanted.
func seconds(t time.Time) metav1.Time {
	m := metav1.NewTime(t)
	return m.Rfc3339Copy()
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
	case reconcile.EventRebuilt:
		kind, reason = corev1.EventTypeWarning, "JournalRebuilt"
	default:
		p.trace(e)
		return
	}
	log := p.log.Info
	if kind == corev1.EventTypeWarning {
		log = p.log.Warn
	}
	log(reason, "environment", p.environment.Name, "namespace", p.environment.Namespace, "message", note)
	p.recorder.Eventf(p.environment, p.related(e), kind, reason, "Reconcile", "%s", truncate(note, 1000))
}

// related is what an event is about beside the environment. Events of one reason about the same are counted as
// one, with the text of the first; so another object, or another release, must be another event.
func (p *projection) related(e reconcile.Event) runtime.Object {
	if e.Drift != nil {
		kind, name, _ := strings.Cut(e.Drift.Object, "/")
		namespace, name, namespaced := strings.Cut(name, "/")
		if !namespaced {
			namespace, name = "", namespace
		}
		return &corev1.ObjectReference{Kind: kind, Namespace: namespace, Name: name}
	}
	if e.Release == nil {
		return nil
	}
	return &corev1.ObjectReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "Release", Namespace: p.environment.Namespace, Name: releaseName(p.environment.Name, e.Release),
	}
}

// trace logs the steps of a release, for who looks for a fault.
func (p *projection) trace(e reconcile.Event) {
	about := []any{"environment", p.environment.Name, "namespace", p.environment.Namespace}
	if e.Release != nil {
		about = append(about, "commit", e.Release.Commit)
	}
	if e.Phase != 0 {
		about = append(about, "phase", e.Phase.String())
	}
	if e.Object.Name != "" {
		about = append(about, "object", e.Object.String())
	}
	if len(e.Waiting) > 0 {
		about = append(about, "waits for", strings.Join(e.Waiting, "; "))
	}
	if e.Message != "" {
		about = append(about, "message", e.Message)
	}
	p.log.Debug(string(e.Kind), about...)
}

// truncate keeps an event's note within what the API server takes (1 KiB).
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
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
	shown := slices.Clone(p.drift)
	for i := range shown {
		shown[i].At = seconds(shown[i].At.Time) // else what was written would never be what is wanted
	}
	return shown
}

// settle shows how a release ended before the next one may begin: a crash can then hide no more than the newest one, and
// what became of that is in the head, from which the first call of a process shows it.
func (p *projection) settle(ctx context.Context, h journal.Head) {
	p.mu.Lock()
	recall := !p.checked && h.Exists()
	p.checked = p.checked || recall
	if recall && h.Last != nil && !p.ended {
		p.recall(h.Last)
	}
	ended := p.ended
	p.ended = false
	p.mu.Unlock()
	if !ended {
		return
	}
	if err := p.flush(ctx); err != nil {
		p.nudge()
	}
}

// recall wants the newest release that ended to be shown as ended. Where it is already, nothing is written.
func (p *projection) recall(last *journal.Outcome) {
	e := reconcile.Event{At: last.FinishedAt, Kind: reconcile.EventEnded, Release: &reconcile.ReleaseInfo{
		Number: last.Number, Commit: last.Commit, Kind: last.Kind, By: last.By, Subject: last.Subject, Outcome: v1alpha1.Outcome(last.Outcome),
		Reason: last.Reason, Message: last.Message, Object: last.Object, Kept: last.Kept, Began: last.BegunAt, Ended: last.FinishedAt,
	}, Phase: last.Phase}
	name := releaseName(p.environment.Name, e.Release)
	rel := &v1alpha1.Release{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: p.environment.Namespace}}
	show(rel, p.environment, e)
	p.shown[name] = &shownRelease{want: rel, recalled: true}
	p.ended = true
}
