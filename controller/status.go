package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/reconcile"
)

// show writes what a pass found into the Environment's status, if it changed.
func (c *Controller) show(ctx context.Context, env *v1alpha1.Environment, run *running, res reconcile.Result, err error) error {
	was := env.Status.DeepCopy()
	project(&env.Status, env, run, res, err)
	if equality.Semantic.DeepEqual(was, &env.Status) {
		return nil
	}
	if err := c.Client.Status().Update(ctx, env); err != nil {
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return nil // a newer Environment is in the queue already
		}
		return fmt.Errorf("show the status: %w", err)
	}
	if was.Release != env.Status.Release {
		return run.projection.forget(ctx, int(max(env.Spec.HistoryLimit, 1)))
	}
	return nil
}

// project is the status as head and pass give it.
func project(s *v1alpha1.EnvironmentStatus, env *v1alpha1.Environment, run *running, res reconcile.Result, err error) {
	s.ObservedGeneration = env.Generation
	if a := run.answer; a.request != "" {
		s.HandledRequest, s.RequestResult, s.RequestRelease = a.request, a.text, a.release
	}
	if res.Tip != "" {
		s.Tip = res.Tip
	}
	s.Drift = run.projection.newestDrift()
	h := res.Head
	if h.Exists() {
		s.Release, s.Phase, s.Waiting = h.Number, "", res.Waiting
		s.Commit, s.ShortCommit = "", ""
		if h.Good != nil {
			s.Commit, s.ShortCommit = h.Good.Commit, h.Good.Commit[:min(10, len(h.Good.Commit))]
		}
		if h.Release != nil && h.Release.Phase != 0 {
			s.Phase = h.Release.Phase.String()
		}
		s.Quarantine = nil
		for _, b := range h.Bad {
			s.Quarantine = append(s.Quarantine, b.Commit)
		}
		if h.State == journal.Idle {
			s.Drifted = int32(len(res.Drifted))
		}
		s.Objects = int32(run.Objects())
	}
	s.State = stateOf(env, h, err)
	before := slices.Clone(s.Conditions)
	conditions(s, env.Generation, res, err)
	keepTimes(s.Conditions, before)
}

// keepTimes gives conditions that were taken away and set again the time of their last change back: a status that says the same
// as before must be the same, or each pass would write one, which asks for the next pass.
func keepTimes(now, before []metav1.Condition) {
	for i := range now {
		if was := meta.FindStatusCondition(before, now[i].Type); was != nil && was.Status == now[i].Status {
			now[i].LastTransitionTime = was.LastTransitionTime
		}
	}
}

func stateOf(env *v1alpha1.Environment, h journal.Head, err error) string {
	var halted *reconcile.HaltedError
	switch {
	case errors.As(err, &halted):
		return v1alpha1.StateHalted
	case h.State == journal.Aborting:
		return v1alpha1.StateReverting
	case h.State == journal.Prepared, h.State == journal.Committed:
		return v1alpha1.StateReleasing
	case env.Spec.Suspend:
		return v1alpha1.StateSuspended
	case h.Good == nil && h.Last != nil && h.Last.Outcome == string(v1alpha1.Halted):
		return v1alpha1.StateHalted
	}
	return v1alpha1.StateIdle
}

// conditions follow kstatus: Ready is the answer, Reconciling and Stalled are there only while they are true.
func conditions(s *v1alpha1.EnvironmentStatus, generation int64, res reconcile.Result, err error) {
	h := res.Head
	meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionReconciling)
	setStalled(s, false, "", "", generation)
	var halted *reconcile.HaltedError
	switch {
	case errors.As(err, &halted):
		setReady(s, metav1.ConditionFalse, "Halted", err.Error(), generation)
		setStalled(s, true, "Halted", err.Error(), generation)
	case err != nil:
		setReady(s, metav1.ConditionFalse, "Waiting", err.Error(), generation)
	case h.State != journal.Idle && h.Exists():
		text := fmt.Sprintf("release %d of %.10s is %s", h.Number, h.Release.Commit, h.State)
		setReady(s, metav1.ConditionUnknown, s.State, text, generation)
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: v1alpha1.ConditionReconciling, Status: metav1.ConditionTrue, Reason: s.State, Message: text, ObservedGeneration: generation})
	case res.TipErr != nil:
		setReady(s, metav1.ConditionFalse, "SourceUnavailable", res.TipErr.Error(), generation)
	case res.Refused != nil:
		text := fmt.Sprintf("%.10s was refused, nothing was written: %s", res.Refused.Commit, res.Refused.Findings[0])
		if n := len(res.Refused.Findings); n > 1 {
			text += fmt.Sprintf(" (and %d more findings: see its Release)", n-1)
		}
		setReady(s, metav1.ConditionFalse, res.Refused.Reason, text, generation)
		setStalled(s, true, res.Refused.Reason, text, generation)
	case s.State == v1alpha1.StateSuspended:
		setReady(s, metav1.ConditionTrue, "Suspended", "suspended; `reconciler resume` goes on", generation)
	case h.Last != nil && h.Quarantined(res.Tip):
		setReady(s, metav1.ConditionFalse, h.Last.Outcome, h.Last.Message, generation)
		setStalled(s, true, h.Last.Outcome, h.Last.Message, generation)
	case h.Good != nil:
		setReady(s, metav1.ConditionTrue, "Released", fmt.Sprintf("%.10s is deployed and verified", h.Good.Commit), generation)
	default:
		setReady(s, metav1.ConditionUnknown, "Pending", res.Why, generation)
	}
	flag(s, v1alpha1.ConditionDrifted, len(res.Drifted) > 0, "Drift", driftText(res.Drifted), generation)
	flag(s, v1alpha1.ConditionDegraded, res.Ill != "", "Unhealthy", res.Ill, generation)
}

func driftText(drifts []v1alpha1.Drift) string {
	if len(drifts) == 0 {
		return ""
	}
	return fmt.Sprintf("%d objects differ from what was applied, the first: %s, %s by %s", len(drifts), drifts[0].Object, drifts[0].Verb, drifts[0].Manager)
}

func setReady(s *v1alpha1.EnvironmentStatus, status metav1.ConditionStatus, reason, message string, generation int64) {
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: truncate(message, 8000), ObservedGeneration: generation})
}

func setStalled(s *v1alpha1.EnvironmentStatus, stalled bool, reason, message string, generation int64) {
	if !stalled {
		meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionStalled)
		return
	}
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: v1alpha1.ConditionStalled, Status: metav1.ConditionTrue, Reason: reason, Message: truncate(message, 8000), ObservedGeneration: generation})
}

func flag(s *v1alpha1.EnvironmentStatus, kind string, on bool, reason, message string, generation int64) {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: "None", ObservedGeneration: generation}
	if on {
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, reason, truncate(message, 8000)
	}
	meta.SetStatusCondition(&s.Conditions, c)
}

// identity reports whether the environment's namespace is terminating and its service account is there.
func (c *Controller) identity(ctx context.Context, env *v1alpha1.Environment) (terminating, account bool, err error) {
	clients, err := kubernetes.NewForConfig(c.Assembly.Config)
	if err != nil {
		return false, false, err
	}
	var ns corev1.Namespace
	got, err := clients.CoreV1().Namespaces().Get(ctx, env.Namespace, metav1.GetOptions{})
	if client.IgnoreNotFound(err) != nil {
		return false, false, err
	}
	if err == nil {
		ns = *got
	}
	_, err = clients.CoreV1().ServiceAccounts(env.Namespace).Get(ctx, env.Spec.ServiceAccountName, metav1.GetOptions{})
	if apierrors.IsForbidden(err) { // the Role that let us went before the account did
		return ns.DeletionTimestamp != nil, false, nil
	}
	if client.IgnoreNotFound(err) != nil {
		return false, false, err
	}
	return ns.DeletionTimestamp != nil, err == nil, nil
}
