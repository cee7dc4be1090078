// Package health judges whether an object has become what it was asked to be.
//
// Its base is kstatus (github.com/fluxcd/cli-utils, pkg/kstatus); on top it sees what kstatus cannot: pods that will not start,
// long before a time-out, and kinds whose missing status means "not yet". It is pure: it reads what it is given, and nothing else.
package health

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nexus-platform/reconciler/object"
)

// State of an object.
type State string

// The states. An object that is being deleted is Progressing, with the reason Terminating.
const (
	Healthy     State = "Healthy"
	Progressing State = "Progressing"
	Failed      State = "Failed"
	Missing     State = "Missing" // given by those who looked for the object and did not find it
)

// Verdict says how an object is, and why.
type Verdict struct {
	Ref     object.Ref
	State   State
	Reason  string // CamelCase
	Message string // one line of printable text, at most 600 characters
	Pod     *PodFailure
	Fatal   bool          // waiting any longer is pointless
	Again   time.Duration // if over 0: after this the verdict may be another although no event told of a change
}

// PodFailure is a pod that shows what is wrong, and how its container ended.
type PodFailure struct {
	Namespace, Name string
	Container       string // empty: the pod as a whole
	Reason          string // CrashLoopBackOff, OOMKilled, ImagePullBackOff, Unschedulable …
	RestartCount    int32
	ExitCode        int32
	Message         string // the termination message or what the kubelet says; where it is empty, whoever can read logs may fill their last lines in
	Previous        bool   // it is the log of the container's previous run that tells why
}

func (p *PodFailure) String() string {
	text := "pod " + p.Name
	if p.Container != "" {
		text += ", container " + p.Container
	}
	text += ": " + p.Reason
	switch {
	case p.RestartCount == 1:
		text += " after 1 restart"
	case p.RestartCount > 1:
		text += fmt.Sprintf(" after %d restarts", p.RestartCount)
	}
	if p.ExitCode != 0 {
		text += fmt.Sprintf(", exit code %d", p.ExitCode)
	}
	if p.Message != "" {
		text += ": " + p.Message
	}
	return text
}

// World is what stands around an object: the pods and replica sets of its namespace, in any order, as a watch told them last.
// Of a pod the metadata, the status, the claims it mounts, and the names and restart policies are looked at.
type World interface {
	Pods(namespace string) []*corev1.Pod
	ReplicaSets(namespace string) []*appsv1.ReplicaSet
}

// Expectation is what the object was asked to be.
type Expectation struct {
	Generation int64 // that the last apply gave; an older state is no answer
	First      bool  // the workload is new: its first crashes are forgiven more readily
}

// Rules are what the policy says about health.
type Rules struct {
	CrashTolerance      int32         // how many crashes of a container are forgiven; the next one is fatal
	FirstCrashTolerance int32         // the same on a workload's first release, if that is more
	PendingGrace        time.Duration // how long a pod may be unschedulable, or impossible to create
	CEL                 []Rule        // judge a kind in place of what this package knows of it
}

// Judge judges objects by rules. NewJudge makes it. It may be used by several at once.
type Judge struct {
	rules  Rules
	custom map[string]*compiled // by Kind.group
	now    func() time.Time
}

// NewJudge compiles the rules; the error names the rule that is wrong.
func NewJudge(rules Rules, now func() time.Time) (*Judge, error) {
	j := &Judge{rules: rules, custom: map[string]*compiled{}, now: now}
	for i, rule := range rules.CEL {
		gk := rule.groupKind().String()
		if j.custom[gk] != nil {
			return nil, fmt.Errorf("spec.health.rules[%d]: %s has a rule already; write one", i, gk)
		}
		c, err := rule.compile()
		if err != nil {
			return nil, fmt.Errorf("spec.health.rules[%d] (%s): %w", i, gk, err)
		}
		j.custom[gk] = c
	}
	return j, nil
}

// Judge says how a live object is. w may be nil: then no pod is seen. It changes nothing that it is given.
//
// A suspended Job is Healthy with the reason Suspended: whoever needs it done, as a hook does, asks for the reason Complete.
func (j *Judge) Judge(live *unstructured.Unstructured, want Expectation, w World) (v Verdict) {
	defer func() {
		v.Ref = object.RefOf(live)
		v.Fatal = v.State == Failed
		v.Reason, v.Message = word(v.Reason), clip(v.Message, messageLength)
	}()
	if v, ok := unseen(live, want); ok {
		return v
	}
	v = j.object(live, w)
	if v.State == Healthy || w == nil {
		return v
	}
	return j.withPods(v, live, want, w)
}

// unseen is the verdict on an object whose state does not speak of what was applied. Pods are no answer then either: they
// are those of the template before.
func unseen(live *unstructured.Unstructured, want Expectation) (Verdict, bool) {
	if live.GetDeletionTimestamp() != nil {
		return Verdict{State: Progressing, Reason: "Terminating", Message: "is being deleted"}, true
	}
	if live.GetGeneration() < want.Generation {
		return Verdict{State: Progressing, Reason: "Stale", Message: "what was applied is not seen yet"}, true
	}
	observed, known := field[int64](live.Object, "status", "observedGeneration")
	if known && observed < live.GetGeneration() || !known && alwaysObserved[kindOf(live)] {
		return Verdict{State: Progressing, Reason: "Unobserved", Message: "its controller has not seen the change yet"}, true
	}
	return Verdict{}, false
}

// alwaysObserved kinds have a controller that never leaves observedGeneration out.
var alwaysObserved = map[string]bool{"Deployment.apps": true, "StatefulSet.apps": true, "DaemonSet.apps": true, "ReplicaSet.apps": true}

// object judges by what the object says of itself.
func (j *Judge) object(live *unstructured.Unstructured, w World) Verdict {
	kind := kindOf(live)
	if rule := j.custom[kind]; rule != nil {
		return rule.judge(live)
	}
	if known := kinds[kind]; known != nil {
		if v, decided := known(live, w); decided {
			return v
		}
	} else if condition := awaitedCondition(live); condition != "" {
		return needs(live, condition)
	}
	return byStatus(live)
}

func kindOf(live *unstructured.Unstructured) string {
	return live.GroupVersionKind().GroupKind().String()
}

func unreadable() Verdict {
	return Verdict{State: Progressing, Reason: "UnreadableStatus", Message: "its status does not have the form that its kind has"}
}

const (
	messageLength = 600 // characters
	reasonLength  = 80  // bytes
)

// word makes a foreign reason what a reason should be: one word.
func word(s string) string {
	s = s[:min(len(s), reasonLength)]
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_./:", r)) {
			return r
		}
		return -1
	}, s)
}

// clip makes foreign text safe for a line on a terminal and small enough for a record.
func clip(s string, length int) string {
	if len(s) > 8*length { // do not walk over a megabyte for a line
		s = s[:8*length]
	}
	r := []rune(printable(s))
	if len(r) > length {
		return string(r[:length-1]) + "…"
	}
	return string(r)
}

// printable drops what a terminal would obey, and folds white space.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.IsControl(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	return strings.Join(strings.Fields(s), " ")
}
