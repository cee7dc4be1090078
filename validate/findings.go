// Package validate finds what is wrong with a set before the cluster does, all of it at once.
package validate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/nexus-platform/reconciler/object"
)

// Severity says whether a finding refuses the set.
type Severity string

// The severities.
const (
	Error   Severity = "Error"   // the set is not released
	Warning Severity = "Warning" // the set is released; somebody should look
)

// Finding is one thing that is wrong with one object. It never holds the value of a field, which may be secret.
type Finding struct {
	Rule     string        `json:"rule"` // kebab-case, stable
	Severity Severity      `json:"severity"`
	Object   object.Ref    `json:"object"`
	Origin   object.Origin `json:"origin"`
	Field    string        `json:"field,omitempty"` // such as spec.template.spec.containers[0].image; empty: the whole object
	Message  string        `json:"message"`         // what is wrong
	Fix      string        `json:"fix,omitempty"`   // what to do
}

// String is one line: overlays/prod/app.yaml:12: Deployment/shop/backend: spec.x: message; fix.
func (f Finding) String() string {
	var parts []string
	for _, p := range []string{f.Origin.String(), f.Object.String(), f.Field} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	text := f.Message
	if f.Fix != "" {
		text += "; " + f.Fix
	}
	return strings.Join(append(parts, text), ": ")
}

// Findings are in order of origin, object, field and rule.
type Findings []Finding

// Errors are the findings that refuse the set.
func (f Findings) Errors() Findings {
	return slices.DeleteFunc(slices.Clone(f), func(x Finding) bool { return x.Severity != Error })
}

// Err is a *RefusedError with all findings if one of them is an error, else nil.
func (f Findings) Err() error {
	if len(f.Errors()) == 0 {
		return nil
	}
	return &RefusedError{Findings: f}
}

// Merge puts findings of several checks into one order, each once.
func Merge(lists ...Findings) Findings {
	all := slices.Concat(lists...)
	slices.SortStableFunc(all, Finding.compare)
	return slices.Compact(all)
}

func (f Finding) compare(o Finding) int {
	return cmp.Or(
		cmp.Compare(f.Origin.Path, o.Origin.Path),
		cmp.Compare(f.Origin.Line, o.Origin.Line),
		f.Object.Compare(o.Object),
		cmp.Compare(f.Field, o.Field),
		cmp.Compare(f.Severity, o.Severity),
		cmp.Compare(f.Rule, o.Rule),
		cmp.Compare(f.Message, o.Message),
		cmp.Compare(f.Fix, o.Fix),
	)
}

// RefusedError says that a set must not be released. Findings holds the warnings too.
type RefusedError struct{ Findings Findings }

func (e *RefusedError) Error() string {
	errs := e.Findings.Errors()
	var b strings.Builder
	fmt.Fprintf(&b, "%s refused before the first write:", count(len(errs), "fault"))
	for _, f := range errs {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

// count writes "1 fault" or "2 faults".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// report collects findings about the objects of one set.
type report struct{ findings Findings }

func (r *report) refuse(o object.Object, rule, field, message, fix string) {
	r.add(Error, o, rule, field, message, fix)
}

func (r *report) warn(o object.Object, rule, field, message, fix string) {
	r.add(Warning, o, rule, field, message, fix)
}

func (r *report) add(s Severity, o object.Object, rule, field, message, fix string) {
	r.findings = append(r.findings, Finding{
		Rule: rule, Severity: s, Object: o.Ref, Origin: o.Origin, Field: field, Message: message, Fix: fix,
	})
}
