package daemon

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/e2e/apicount"
	"github.com/nexus-platform/reconciler/e2e/cluster"
)

// own is a site of this test alone: a control plane that may be stopped, with no daemon yet.
func own(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: filepath.Join(dir, "cluster")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	s := newSite(t, c, filepath.Join(dir, "site"))
	s.install(t)
	return s
}

// counted puts a proxy before the API server and returns it with a kubeconfig of the daemon that leads through it.
func (s *site) counted(t *testing.T) (*apicount.Proxy, string) {
	t.Helper()
	p, err := apicount.Start(s.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, s.accountKubeconfig(t, systemNamespace, "nexus-reconciler", p.URL, p.CA)
}

// passes counts the passes that the daemon logged.
func (p *process) passes() int { return strings.Count(p.tail(1<<20), " msg=pass ") }

// passesOf counts those of the environment of one namespace.
func (p *process) passesOf(namespace string) int {
	return strings.Count(p.tail(1<<20), " msg=pass environment="+envName+" namespace="+namespace+" ")
}

// idle leaves out what a daemon asks for without having anything to do: its Lease, and that of its own cache.
func idle(r apicount.Request) bool { return strings.HasPrefix(r.Resource, "leases") }

// writes reports a request that writes, or would if it were no dry run.
func writes(r apicount.Request) bool {
	switch r.Verb {
	case "create", "update", "patch", "apply", "delete", "deletecollection":
		return !idle(r) && !strings.HasPrefix(r.Resource, "events") && !strings.Contains(r.Resource, "subjectaccessreviews") &&
			!strings.Contains(r.Resource, "selfsubject")
	}
	return false
}

func TestARestartWithAThousandObjectsInSyncWritesNothingAndListsEachKindOnce(t *testing.T) {
	s := own(t)
	tn := newTenant(t, s)
	f := files{}
	for i := range 1000 / 50 {
		text := ""
		for j := range 50 {
			text += "---\n" + configMap(fmt.Sprintf("cm-%d-%d", i, j), "x")
		}
		f[fmt.Sprintf("f%d.yaml", i)] = text
	}
	f["app.yaml"] = app("web", "1", 1)
	commit := tn.push("a thousand", f)
	proxy, kubeconfig := s.counted(t)
	first := s.spawn(t, kubeconfig)
	tn.follow()
	tn.rest(commit)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	before := tn.env().Status
	proxy.Take()

	second := s.daemon(t, kubeconfig)
	until(t, "the environment to be taken up", func() bool { return second.passes() > 0 }, tn.state, func() string { return second.tail(30) })
	requests := proxy.Take()
	for _, r := range requests {
		if writes(r) {
			t.Errorf("it wrote: %s", r)
		}
	}
	lists := apicount.Tally(requests, func(r apicount.Request) string {
		if r.Verb != "list" {
			return ""
		}
		return r.Resource + " in " + r.Namespace
	})
	for what, n := range lists {
		if n > 1 {
			t.Errorf("%s were listed %d times", what, n)
		}
	}
	if after := tn.env().Status; after.Release != before.Release {
		t.Errorf("it made release %d", after.Release)
	}

	// Passes with nothing new ask nothing of the API server.
	at := second.passes()
	proxy.Take()
	until(t, "three more passes", func() bool { return second.passes() >= at+3 })
	for _, r := range proxy.Take() {
		if !idle(r) {
			t.Errorf("a pass with nothing new asked: %s", r)
		}
	}
}

func TestTheAPIServerMayBeAwayForAWhile(t *testing.T) {
	s := own(t)
	tn := newTenant(t, s)
	first := tn.push("one", files{"a.yaml": configMap("a", "1")})
	s.daemon(t, s.daemonKubeconfig(t))
	tn.follow()
	tn.rest(first)
	if err := s.Halt(); err != nil {
		t.Fatal(err)
	}
	second := tn.push("while it is away", files{"a.yaml": configMap("a", "2")})
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	tn.outcome(second, v1alpha1.Succeeded)
	tn.rest(second)
	if got := tn.value("a"); got != "2" {
		t.Errorf("a is %s", got)
	}
	if !meta.IsStatusConditionTrue(tn.env().Status.Conditions, v1alpha1.ConditionReady) {
		t.Error(ready(tn.env()))
	}
}
