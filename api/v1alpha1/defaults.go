package v1alpha1

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/object"
)

// ParsePolicy reads release.yaml strictly, checks it and fills in the defaults. No
// bytes give the default policy. The error holds every fault, each with its field.
func ParsePolicy(b []byte) (*ReleasePolicy, error) {
	p := &ReleasePolicy{}
	if len(b) > 0 {
		if err := yaml.UnmarshalStrict(b, p); err != nil {
			return nil, err
		}
		if p.APIVersion != GroupVersion.String() || p.Kind != "ReleasePolicy" {
			return nil, fmt.Errorf("apiVersion and kind are %q and %q; write %s and ReleasePolicy", p.APIVersion, p.Kind, GroupVersion)
		}
	}
	p.Default()
	return p, p.Validate()
}

// Default fills in what was left out.
func (p *ReleasePolicy) Default() {
	s := &p.Spec
	fill(&s.Settle, metav1.Duration{Duration: 5 * time.Second})
	fill(&s.Bake, metav1.Duration{Duration: 5 * time.Minute})
	fill(&s.Patience, metav1.Duration{Duration: 30 * time.Minute})
	fill(&s.Health.CrashTolerance, 2)
	fill(&s.Health.FirstCrashTolerance, 5)
	fill(&s.Health.PendingGrace, metav1.Duration{Duration: 30 * time.Second})
	fill(&s.Prune.MaxCount, 50)
	fill(&s.Prune.MaxPercent, 30)
	if s.Drift.Mode == "" {
		s.Drift.Mode = DriftHeal
	}
	for i := range s.Checks {
		fill(&s.Checks[i].Timeout, metav1.Duration{Duration: 5 * time.Second})
		fill(&s.Checks[i].Retry, metav1.Duration{Duration: time.Minute})
	}
}

func fill[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

// The drift modes.
const (
	DriftHeal   = "heal"
	DriftReport = "report"
	DriftIgnore = "ignore"
)

// Timeout of a phase.
func (p *ReleasePolicy) Timeout(phase object.Phase) time.Duration {
	if t := p.Spec.Phases[phase.String()].Timeout.Duration; t > 0 {
		return t
	}
	if phase == object.Database || phase == object.Application {
		return 10 * time.Minute
	}
	return 5 * time.Minute
}

// Validate finds every fault of a policy that has its defaults.
func (p *ReleasePolicy) Validate() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	s := p.Spec
	for name, phase := range s.Phases {
		if _, err := object.ParsePhase(name); err != nil {
			fault("spec.phases: %w", err)
		}
		if phase.Timeout.Duration < 0 {
			fault("spec.phases.%s.timeout: is negative", name)
		}
	}
	for name, d := range map[string]*metav1.Duration{"settle": s.Settle, "bake": s.Bake, "patience": s.Patience, "health.pendingGrace": s.Health.PendingGrace} {
		if d.Duration < 0 {
			fault("spec.%s: is negative", name)
		}
	}
	if *s.Health.CrashTolerance < 0 || *s.Health.FirstCrashTolerance < 0 {
		fault("spec.health: a crash tolerance is negative")
	}
	for i, r := range s.Health.Rules {
		if r.Kind == "" || r.Healthy == "" {
			fault("spec.health.rules[%d]: kind and healthy are needed", i)
		}
	}
	modes := []string{DriftHeal, DriftReport, DriftIgnore}
	if !slices.Contains(modes, s.Drift.Mode) {
		fault("spec.drift.mode: %q is none of %v", s.Drift.Mode, modes)
	}
	for i, r := range s.Drift.Rules {
		if len(r.Fields) == 0 && !slices.Contains(modes, r.Mode) {
			fault("spec.drift.rules[%d]: needs fields, or a mode out of %v", i, modes)
		}
		for _, f := range r.Fields {
			if len(f) == 0 || f[0] != '/' {
				fault("spec.drift.rules[%d].fields: %q is not a JSON pointer such as /spec/replicas", i, f)
			}
		}
	}
	if *s.Prune.MaxCount < 0 || *s.Prune.MaxPercent < 0 || *s.Prune.MaxPercent > 100 {
		fault("spec.prune: maxCount is at least 0 and maxPercent between 0 and 100")
	}
	names := map[string]bool{}
	for i, c := range s.Checks {
		if err := c.validate(); err != nil {
			fault("spec.checks[%d]: %w", i, err)
		}
		if names[c.Name] {
			fault("spec.checks[%d]: the name %q is used twice", i, c.Name)
		}
		names[c.Name] = true
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

func (c *Check) validate() error {
	switch {
	case c.Name == "":
		return errors.New("name is needed")
	case (c.HTTP == nil) == (c.TCP == nil):
		return errors.New("exactly one of http and tcp is needed")
	case c.Timeout.Duration <= 0 || c.Retry.Duration < 0:
		return errors.New("timeout is positive and retry is not negative")
	case c.TCP != nil:
		if _, _, err := net.SplitHostPort(c.TCP.Address); err != nil {
			return fmt.Errorf("tcp.address: %q is not host:port", c.TCP.Address)
		}
		return nil
	}
	u, err := url.Parse(c.HTTP.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return errors.New("http.url: is not an http or https URL")
	}
	if u.User != nil {
		return errors.New("http.url: holds a user or password, which would be in Git")
	}
	return nil
}
