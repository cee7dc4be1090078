// Package health judges whether an object has become what it was asked to be.
//
// Its base is kstatus (https://github.com/kubernetes-sigs/cli-utils, pkg/kstatus); on top it sees what kstatus cannot: pods that
// will not start, long before a time-out. It is pure: it reads what it is given, and nothing else.
package health

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"

	"github.com/nexus-platform/reconciler/object"
)

// State of an object.
type State string

// The states.
const (
	Healthy     State = "Healthy"
	Progressing State = "Progressing"
	Failed      State = "Failed"
	Missing     State = "Missing"
)

// Verdict says how an object is, and why.
type Verdict struct {
	Ref     object.Ref
	State   State
	Reason  string // CamelCase
	Message string
	Pod     *PodFailure // the pod that shows what is wrong
	Fatal   bool        // waiting any longer is pointless
}

// PodFailure is the container that does not run, and how it ended.
type PodFailure struct {
	Namespace, Name, Container string
	Reason                     string // CrashLoopBackOff, ImagePullBackOff …
	Restarts                   int32
	ExitCode                   int32
	Message                    string // the termination message, or what the kubelet says
}

func (p *PodFailure) String() string {
	text := fmt.Sprintf("pod %s, container %s: %s", p.Name, p.Container, p.Reason)
	if p.Restarts > 0 {
		text += fmt.Sprintf(" after %d restarts, exit code %d", p.Restarts, p.ExitCode)
	}
	if p.Message != "" {
		text += ": " + p.Message
	}
	return text
}

// World is what stands around an object: the pods and replica sets of its namespace, as a watch told them last.
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
	CrashTolerance      int32 // restarts that are forgiven
	FirstCrashTolerance int32 // the same on a workload's first release
	PendingGrace        time.Duration
	CEL                 []Rule
}

// Judge judges objects by rules. NewJudge makes it.
type Judge struct {
	rules  Rules
	custom map[string]*compiled // by Kind.group
	now    func() time.Time
}

// NewJudge compiles the rules; the error names the rule that is wrong.
func NewJudge(rules Rules, now func() time.Time) (*Judge, error) {
	j := &Judge{rules: rules, custom: map[string]*compiled{}, now: now}
	for i, rule := range rules.CEL {
		c, err := rule.compile()
		if err != nil {
			return nil, fmt.Errorf("spec.health.rules[%d] (%s): %w", i, rule.Kind, err)
		}
		j.custom[rule.Kind+"."+rule.Group] = c
	}
	return j, nil
}

// Judge says how a live object is.
func (j *Judge) Judge(live *unstructured.Unstructured, want Expectation, w World) Verdict {
	v := j.judge(live, want, w)
	v.Ref = object.RefOf(live)
	if v.State == Failed {
		v.Fatal = true
	}
	return v
}

func (j *Judge) judge(live *unstructured.Unstructured, want Expectation, w World) Verdict {
	if live.GetDeletionTimestamp() != nil {
		return Verdict{State: Progressing, Reason: "Terminating", Message: "is being deleted"}
	}
	if live.GetGeneration() < want.Generation {
		return Verdict{State: Progressing, Reason: "Stale", Message: "what was applied is not seen yet"}
	}
	gvk := live.GroupVersionKind()
	if rule := j.custom[gvk.Kind+"."+gvk.Group]; rule != nil {
		return rule.judge(live)
	}
	if known := kinds[gvk.GroupKind().String()]; known != nil {
		if v, decided := known(live, w); decided {
			return v
		}
	}
	v := byStatus(live)
	if v.State == Progressing || v.State == Failed {
		if early := j.pods(live, want, w); early != nil {
			return Verdict{State: Failed, Reason: early.Reason, Message: early.String(), Pod: early}
		}
	}
	return v
}

// byStatus is kstatus' answer. It trusts the shape of a status, which anybody may write, so what makes it fail counts as not there yet.
func byStatus(live *unstructured.Unstructured) (v Verdict) {
	defer func() {
		if recover() != nil {
			v = Verdict{State: Progressing, Reason: "UnreadableStatus", Message: "its status does not have the form that its kind has"}
		}
	}()
	res, err := status.Compute(live)
	if err != nil {
		return Verdict{State: Progressing, Reason: "UnreadableStatus", Message: "its status does not have the form that its kind has"}
	}
	reason := "InProgress"
	if len(res.Conditions) > 0 && res.Conditions[0].Reason != "" {
		reason = res.Conditions[0].Reason
	}
	switch res.Status {
	case status.CurrentStatus:
		return Verdict{State: Healthy, Reason: "Current", Message: res.Message}
	case status.FailedStatus:
		return Verdict{State: Failed, Reason: reason, Message: res.Message}
	}
	return Verdict{State: Progressing, Reason: reason, Message: res.Message}
}
