package daemon

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
)

func TestAPushThatTouchesOneOfTwoEnvironmentsOfARepositoryReleasesThatOneAlone(t *testing.T) {
	t.Parallel()
	a := newTenant(t, shared(t))
	b := &tenant{site: a.site, t: t, git: a.git, repo: a.repo, ns: a.namespace()}
	a.overlay("overlays/b", b.ns, files{"cm.yaml": configMap("settings", "b1")})
	first := a.push("both", files{"cm.yaml": configMap("settings", "a1")})
	a.follow()
	b.follow(func(env *v1alpha1.Environment) { env.Spec.Path = "overlays/b" })
	a.rest(first)
	b.rest(first)

	before := b.env().Status
	second := a.push("a alone", files{"cm.yaml": configMap("settings", "a2")})
	a.outcome(second, v1alpha1.Succeeded)
	until(t, "b to see the tip", func() bool { return b.env().Status.Tip == second }, b.state)
	if got := a.value("settings"); got != "a2" {
		t.Errorf("a holds %s", got)
	}
	if n := len(b.releases()); n != 1 || b.env().Status.Release != before.Release {
		t.Errorf("b made %d releases, number %d; nothing of it changed", n, b.env().Status.Release)
	}

	b.overlay("overlays/b", b.ns, files{"cm.yaml": configMap("settings", "b2")})
	third := a.repo.Commit("b alone")
	a.repo.Push()
	b.outcome(third, v1alpha1.Succeeded)
	if got := b.value("settings"); got != "b2" {
		t.Errorf("b holds %s", got)
	}
	until(t, "a to see the tip", func() bool { return a.env().Status.Tip == third }, a.state)
	if n := len(a.releases()); n != 2 {
		t.Errorf("a made %d releases; want 2", n)
	}
}

func TestAReleaseIsVisibleWhileItIsUnderWay(t *testing.T) {
	t.Parallel()
	tn := newTenant(t, shared(t))
	tn.follow()
	commit := tn.push("slow", files{"app.yaml": app("web", "1", 1, "devcluster/ready-after: 5s")})
	until(t, "the status to say Releasing with what it waits for", func() bool {
		s := tn.env().Status
		return s.State == v1alpha1.StateReleasing && len(s.Waiting) > 0 && s.Phase == "application"
	}, tn.state)
	until(t, "the Release to show the phase", func() bool {
		all := tn.releases()
		return len(all) == 1 && all[0].Status.Outcome == "" && all[0].Status.Phase == "application" && len(all[0].Status.Waiting) > 0
	}, tn.state)
	if got := tn.cli(t, tn.ns, "explain", envName); got.code != 0 || !contains(got.out, "waits for", "Deployment", "web") {
		t.Errorf("explain: %+v", got)
	}
	tn.outcome(commit, v1alpha1.Succeeded)
	tn.rest(commit)
}

// BenchmarkPushToVisibleStart tells how long a push takes to be a visible release, as a share of what is promised: the interval and a second.
func BenchmarkPushToVisibleStart(b *testing.B) {
	tn := newTenant(b, shared(b))
	first := tn.push("first", files{"cm.yaml": configMap("a", "0")})
	tn.follow()
	tn.rest(first)
	var took time.Duration
	for i := 0; b.Loop(); i++ {
		tn.overlay(folder, tn.ns, files{"cm.yaml": configMap("a", strconv.Itoa(i+1))})
		commit := tn.repo.Commit("next")
		pushed := time.Now()
		tn.repo.Push()
		until(b, "the release to show", func() bool {
			return slices.ContainsFunc(tn.releases(), func(r v1alpha1.Release) bool { return r.Spec.Commit == commit })
		}, tn.state)
		took += time.Since(pushed)
		tn.rest(commit)
	}
	promise := time.Second + time.Second
	b.ReportMetric(took.Seconds()/float64(b.N), "s/start")
	b.ReportMetric(took.Seconds()/float64(b.N)/promise.Seconds(), "of-promise")
}
