package faults

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	for limit := time.After(deadline); !l.allEnded(); {
		select {
		case <-limit:
			t.Fatal("the daemon was not killed")
		case <-time.After(interval / 10):
		}
	}
	version(journal.Version + 1)
	l.proxy.Arm()
	if err := l.supervise(nil); err != nil {
		t.Fatal(err)
	}
	for limit := time.After(deadline); !strings.Contains(l.condition(), "Halted"); {
		select {
		case <-limit:
			t.Fatalf("the daemon does not refuse: %s", l.condition())
		case <-time.After(interval / 10):
		}
	}
	if text := l.condition(); !strings.Contains(text, "version 2") {
		t.Errorf("what it says does not name the version: %s", text)
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
