package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
)

// TestARefusalThatLasts refuses every write of a step until somebody mends the reason: where a release can neither go on nor back,
// it halts and says so, and then goes on by itself.
func TestARefusalThatLasts(t *testing.T) {
	s := newSite(t)
	var runs []lastingRun
	for _, mode := range proxy.Refusals {
		runs = append(runs,
			lastingRun{mode: mode, step: proxy.S2, refused: true, end: "old"},
			lastingRun{mode: mode, step: proxy.S5, end: "old"},
			lastingRun{mode: mode, step: proxy.S12, halts: true, end: "new"},
			lastingRun{mode: mode, step: proxy.R2, bad: true, halts: true, end: "old"})
	}
	if !*full {
		runs = sample(t, runs, 2)
	}
	runs = part(t, runs)
	into := openResults(t, "lasting")
	t.Run("refusals", func(t *testing.T) {
		for _, r := range runs {
			if into.done[r.name()] {
				continue
			}
			t.Run(r.name(), func(t *testing.T) {
				t.Parallel()
				l, err := newLane(t, s, laneOptions{})
				if err != nil {
					t.Fatal(err)
				}
				into.add(t, l.outlast(t, r))
			})
		}
	})
	report(t, "refusals that last", into)
}

// lastingRun is one release and what is refused of it.
type lastingRun struct {
	mode           proxy.Mode
	step           proxy.Step
	bad            bool
	halts, refused bool
	end            string
}

func (r lastingRun) name() string { return fmt.Sprintf("lasting %s at %s", r.mode, r.step) }

// outlast releases a commit while the step is refused, and mends that when the daemon has told what it thinks of it.
func (l *lane) outlast(t *testing.T, run lastingRun) result {
	t.Helper()
	began := time.Now()
	l.begin(t.Context())
	l.proxy.Arm(proxy.Plan{Mode: run.mode, Step: run.step, Lasting: true})
	commit := l.push("next", l.next(run.bad))
	outcome, err := l.ends(commit)
	condition := l.condition()
	fired := l.proxy.Fired()
	l.proxy.Lift()
	lifted := time.Now()
	switch {
	case err != nil || len(fired) == 0:
		t.Errorf("%d refusals, ended as %q: %v", len(fired), outcome, err)
	case run.halts != (outcome == "Halted"), run.refused != (outcome == "Refused"):
		t.Errorf("it ended as %s: %s", outcome, condition)
	case run.halts:
		for _, words := range []string{"nothing is half-written", "by itself", "`reconciler explain web --namespace " + l.ns + "`"} {
			if !strings.Contains(condition, words) {
				t.Errorf("Halted without %q: %s", words, condition)
			}
		}
		if !slices.ContainsFunc(fired, func(w proxy.Write) bool { return strings.Contains(condition, "/"+w.Name+": ") }) {
			t.Errorf("Halted without an object: %s", condition)
		}
		if outcome, err = l.endsUnless(commit, mended, func() string { return "" }); err != nil {
			t.Errorf("after it was mended it ended as %q: %v", outcome, err)
		}
	}
	decided := time.Now()
	l.calm()
	r := result{Case: run.name(), Mode: run.mode, Bad: run.bad, Step: run.step, Fired: len(fired), Outcome: outcome, Recovery: decided.Sub(lifted)}
	r.End = l.checkWorld(t.Context(), commit)
	if r.End != run.end {
		l.violate("matrix: %s that lasts at %s ended as %s", run.mode, run.step, r.End)
	}
	l.proxy.Arm()
	if err := l.goBack(); err != nil {
		l.violate("I11: %v", err)
	}
	if r.Violations = l.violations; len(r.Violations) > 0 {
		t.Errorf("%s", r)
	}
	r.Took = time.Since(began)
	return r
}

// TestSomebodyDeletesANamespaceOfARelease does it just before each write, while the release also changes what is in it.
func TestSomebodyDeletesANamespaceOfARelease(t *testing.T) {
	s := newSite(t)
	var runs []plannedRun
	for _, bad := range []bool{false, true} {
		for i := 1; i <= 20; i++ {
			runs = append(runs, plannedRun{name: fmt.Sprintf("namespace bad=%t@%d", bad, i), bad: bad, plans: []proxy.Plan{{Mode: proxy.LoseNamespace, At: i}}})
		}
	}
	if !*full {
		runs = sample(t, runs, 2)
	}
	into := openResults(t, "namespace")
	t.Run("faults", func(t *testing.T) { drive(t, s, runs, into, laneOptions{small: true, outside: true}, *lanes) })
	report(t, "a namespace that somebody deletes", into)
}

// outside is the second namespace of a lane that has one.
func (l *lane) outside() string { return l.ns + "-two" }

// addOutside puts a namespace and what is in it into a set whose other objects say that they are in the lane's.
func (l *lane) addOutside(set map[string]string, value string) map[string]string {
	for name, text := range set {
		set[name] = strings.ReplaceAll(text, "\nmetadata:\n", "\nmetadata:\n  namespace: "+l.ns+"\n")
	}
	set["two.yaml"] = "apiVersion: v1\nkind: Namespace\n" + meta(l.outside())
	set["within.yaml"] = strings.ReplaceAll(configMap("within", value), "\nmetadata:\n", "\nmetadata:\n  namespace: "+l.outside()+"\n")
	return set
}

// checkOutside: what is in the second namespace becomes what the head says, as soon as the old namespace has gone.
func (l *lane) checkOutside(end string) {
	want, why := map[string]string{"old": "1", "new": "2"}[end], ""
	for limit := time.After(deadline); ; {
		ns, err := l.kube.CoreV1().Namespaces().Get(l.t.Context(), l.outside(), metav1.GetOptions{})
		if err == nil {
			why = fmt.Sprintf("the second namespace is %s", ns.Status.Phase)
			within, err := l.kube.CoreV1().ConfigMaps(l.outside()).Get(l.t.Context(), "within", metav1.GetOptions{})
			if err == nil && within.Data["key"] == want && ns.Status.Phase == corev1.NamespaceActive {
				return
			}
		}
		select {
		case <-limit:
			l.violate("I2: the head says %s, but %s, and what is in it is not as declared: %v", end, why, err)
			return
		case <-time.After(interval / 5):
		}
	}
}
