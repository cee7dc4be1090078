package faults

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/journal"
)

// outcome of the newest look at a commit: empty while it is not decided.
func (l *lane) outcome(commit string) (string, error) {
	h, _ := l.proxy.Head()
	if h.State == journal.Idle && h.Last != nil && h.Last.Commit == commit {
		return h.Last.Outcome, nil
	}
	env := &v1alpha1.Environment{}
	if err := l.client.Get(l.t.Context(), client.ObjectKey{Namespace: l.ns, Name: envName}, env); err != nil {
		return "", err
	}
	if env.Status.State == v1alpha1.StateHalted {
		return "Halted", nil
	}
	for _, c := range env.Status.Conditions {
		if c.Type == v1alpha1.ConditionStalled && c.Status == metav1.ConditionTrue && env.Status.Tip == commit && h.State == journal.Idle &&
			strings.Contains(c.Message, "was refused") && strings.Contains(c.Message, commit[:10]) {
			return "Refused", nil
		}
	}
	return "", nil
}

// mended is how long an environment may still stand still after a person mended what it names: it tries again within a minute.
const mended = 75 * time.Second

// haltedFor is how long an environment has to stand still until that is how the run ended: what halts tries again by itself.
const haltedFor = 12 * time.Second

var errStuck = errors.New("nothing was decided in time")

// ends waits for the outcome of a commit. A daemon that ended is started again, as its supervisor would.
func (l *lane) ends(commit string) (string, error) {
	return l.endsUnless(commit, haltedFor, func() string { return "" })
}

// endsUnless waits for the outcome of a commit, or of the one that takes its place. Halted is one if it lasts.
func (l *lane) endsUnless(commit string, patience time.Duration, superseding func() string) (string, error) {
	limit := time.After(deadline + l.options.outage)
	var halted time.Time
	for {
		if err := l.supervise(append(slices.Clone(l.options.env), l.options.later...)); err != nil {
			return "", err
		}
		outcome, err := l.outcome(commit)
		if newer := superseding(); newer != "" && outcome == "" && err == nil { // the first may never be looked at
			outcome, err = l.outcome(newer)
		}
		switch {
		case err != nil || outcome != "" && outcome != "Halted":
			return outcome, err
		case outcome == "":
			halted = time.Time{}
		case halted.IsZero():
			halted = time.Now()
		case time.Since(halted) > patience:
			return outcome, nil
		}
		_, changed := l.proxy.Head()
		select {
		case <-limit:
			return "", fmt.Errorf("%w: %s", errStuck, l.condition())
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// condition is what the Environment says of itself.
func (l *lane) condition() string {
	env := &v1alpha1.Environment{}
	if err := l.client.Get(l.t.Context(), client.ObjectKey{Namespace: l.ns, Name: envName}, env); err != nil {
		return err.Error()
	}
	text := env.Status.State
	for _, c := range env.Status.Conditions {
		if c.Status != metav1.ConditionFalse || c.Type == v1alpha1.ConditionReady {
			text += fmt.Sprintf("; %s %s %s: %s", c.Type, c.Status, c.Reason, c.Message)
		}
	}
	return text
}
