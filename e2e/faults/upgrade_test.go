package faults

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/journal"
)

// TestAnOlderBinaryRefusesANewerHead makes the head of a release that is open one of a newer program: nothing is written until it
// is one again that this program understands; then the release goes on.
func TestAnOlderBinaryRefusesANewerHead(t *testing.T) {
	l, err := newLane(t, newSite(t), laneOptions{small: true})
	if err != nil {
		t.Fatal(err)
	}
	secrets := l.kube.CoreV1().Secrets(l.system)
	version := func(v int) {
		t.Helper()
		s, err := secrets.Get(t.Context(), "nexus-head-"+string(l.uid), metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var head map[string]any
		if err := json.Unmarshal(s.Data["head"], &head); err != nil {
			t.Fatal(err)
		}
		head["version"] = v
		if s.Data["head"], err = json.Marshal(head); err != nil {
			t.Fatal(err)
		}
		if _, err := secrets.Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	l.begin(t.Context())
	l.proxy.Arm(proxy.Plan{Mode: proxy.KillAfterApply, Step: proxy.S5})
	commit := l.push("next", l.next(false))
	l.await(t, "the daemon is killed", l.allEnded)
	version(journal.Version + 1)
	l.proxy.Arm()
	if err := l.supervise(nil); err != nil {
		t.Fatal(err)
	}
	l.await(t, "the daemon refuses", func() bool { return strings.Contains(l.condition(), "Halted") })
	if text := l.condition(); !strings.Contains(text, "version 2") {
		t.Errorf("what it says does not name the version: %s", text)
	} else if !strings.Contains(text, "`kubectl --namespace "+l.system+" rollout undo deployment/nexus-reconciler`") {
		t.Errorf("what it says does not name the way back: %s", text)
	}
	for _, w := range l.proxy.Writes() {
		if w.Step != proxy.Projection && w.Step != proxy.Unnumbered {
			t.Errorf("it wrote %s", w)
		}
	}
	version(journal.Version)
	if end, err := l.ends(commit); err != nil || end != "Succeeded" {
		t.Fatalf("the release ended as %s: %v", end, err)
	}
	if end := l.checkWorld(t.Context(), commit); end != "new" || len(l.violations) > 0 {
		t.Errorf("the world is %s: %v", end, l.violations)
	}
}

// allEnded reports that no daemon of the lane runs.
func (l *lane) allEnded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.daemons {
		if !p.ended() {
			return false
		}
	}
	return true
}

// TestANewerBinaryGoesOnWithAnOlderHead takes from the journal of an open release what programs of the first version of the head
// did not write yet: the spare, and the number on the plan.
func TestANewerBinaryGoesOnWithAnOlderHead(t *testing.T) {
	for _, bad := range []bool{false, true} {
		t.Run(fmt.Sprintf("bad=%t", bad), func(t *testing.T) {
			l, err := newLane(t, newSite(t), laneOptions{small: true})
			if err != nil {
				t.Fatal(err)
			}
			l.begin(t.Context())
			l.proxy.Arm(proxy.Plan{Mode: proxy.KillAfterApply, Step: proxy.S5})
			commit := l.push("next", l.next(bad))
			l.await(t, "the daemon is killed", l.allEnded)
			secrets := l.kube.CoreV1().Secrets(l.system)
			if err := secrets.Delete(t.Context(), "nexus-spare-"+string(l.uid), metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			plans, err := secrets.List(t.Context(), metav1.ListOptions{LabelSelector: "nexus.dev/release"})
			if err != nil || len(plans.Items) == 0 {
				t.Fatalf("no plan has a number: %v", err)
			}
			for _, s := range plans.Items {
				if _, err := secrets.Patch(t.Context(), s.Name, types.MergePatchType, []byte(`{"metadata":{"labels":{"nexus.dev/release":null}}}`), metav1.PatchOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			want, state := "Succeeded", "new"
			if bad {
				want, state = "Reverted", "old"
			}
			if end, err := l.ends(commit); err != nil || end != want {
				t.Fatalf("the release ended as %s: %v", end, err)
			}
			if end := l.checkWorld(t.Context(), commit); end != state || len(l.violations) > 0 {
				t.Errorf("the world is %s: %v", end, l.violations)
			}
		})
	}
}
