package health

import (
	"fmt"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// byStatus is kstatus' answer, and for kinds that it does not know, the condition Available too. Anybody may write a status, in any
// form; kstatus takes some forms for granted and panics at others.
func byStatus(live *unstructured.Unstructured) (v Verdict) {
	defer func() {
		if recover() != nil {
			v = unreadable()
		}
	}()
	for _, kind := range []string{"Ready", "Available"} {
		if c := conditionOf(live, kind); c.stale {
			return unobserved(kind)
		}
	}
	res, err := status.Compute(live)
	if err != nil {
		return unreadable()
	}
	reason := "InProgress"
	if len(res.Conditions) > 0 {
		if res.Conditions[0].Reason != "" {
			reason = res.Conditions[0].Reason
		}
		if res.Conditions[0].Message != "" { // kstatus' own message leaves out what the controller said
			res.Message = res.Conditions[0].Message
		}
	}
	switch res.Status {
	case status.FailedStatus:
		return Verdict{State: Failed, Reason: reason, Message: res.Message}
	case status.CurrentStatus:
		if c := conditionOf(live, "Available"); c.status == "False" && conditionOf(live, "Ready").status == "" {
			return Verdict{State: Progressing, Reason: c.reasonOr("NotAvailable"), Message: c.message}
		}
		return Verdict{State: Healthy, Reason: "Current", Message: res.Message}
	}
	return Verdict{State: Progressing, Reason: reason, Message: res.Message}
}

// needs waits for a condition that the kind's controller always sets: that it is not there means "not yet".
func needs(live *unstructured.Unstructured, kind string) Verdict {
	if s := conditionOf(live, "Stalled"); s.status == "True" && !s.stale {
		return Verdict{State: Failed, Reason: s.reasonOr("Stalled"), Message: s.message}
	}
	c := conditionOf(live, kind)
	switch {
	case c.status == "":
		return Verdict{State: Progressing, Reason: "NoStatus", Message: "has no condition " + kind + " yet"}
	case c.stale:
		return unobserved(kind)
	case c.status == "True":
		return Verdict{State: Healthy, Reason: kind, Message: c.message}
	}
	return Verdict{State: Progressing, Reason: c.reasonOr("Not" + kind), Message: c.message}
}

func unobserved(kind string) Verdict {
	return Verdict{State: Progressing, Reason: "Unobserved", Message: "its condition " + kind + " speaks of an older generation"}
}

// condition is one of a status' conditions; the zero value is one that is not there.
type condition struct {
	status, reason, message, since string
	stale                          bool // it says itself that it speaks of an older generation
}

func (c condition) reasonOr(other string) string {
	if c.reason == "" {
		return other
	}
	return c.reason
}

func conditionOf(live *unstructured.Unstructured, kind string) condition {
	s, _ := field[map[string]any](live.Object, "status")
	return conditionIn(s, kind, live.GetGeneration())
}

// conditionIn reads a condition of m, as far as it has the usual form.
func conditionIn(m map[string]any, kind string, generation int64) (c condition) {
	list, _ := m["conditions"].([]any)
	for _, item := range list {
		found, _ := item.(map[string]any)
		if found["type"] != kind {
			continue
		}
		c.status, _ = found["status"].(string)
		c.reason, _ = found["reason"].(string)
		c.message, _ = found["message"].(string)
		c.since, _ = found["lastTransitionTime"].(string)
		observed, known := found["observedGeneration"].(int64)
		c.stale = known && observed < generation
		return c
	}
	return c
}

// field reads one field; ok is false if it is not there or is of another type. It copies nothing.
func field[T any](m map[string]any, path ...string) (value T, ok bool) {
	v, found, err := unstructured.NestedFieldNoCopy(m, path...)
	if !found || err != nil {
		return value, false
	}
	value, ok = v.(T)
	return value, ok
}

// number reads a whole number, or gives other.
func number(live *unstructured.Unstructured, other int64, path ...string) int64 {
	if n, ok := field[int64](live.Object, path...); ok {
		return n
	}
	return other
}

// text reads a string, or gives "".
func text(live *unstructured.Unstructured, path ...string) string {
	s, _ := field[string](live.Object, path...)
	return s
}

func ratio(what string, is, want int64) string { return fmt.Sprintf("%s: %d/%d", what, is, want) }
