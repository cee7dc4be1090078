package faults

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/journal"
)

// violate notes that an invariant does not hold. It may be called while a request is served.
func (l *lane) violate(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.violations = append(l.violations, fmt.Sprintf(format, args...))
}

// checkHistory checks what passed the proxy: I1, I3, I4, I9 and rule 5 of the protocol.
func (l *lane) checkHistory(writes []proxy.Write) {
	h := l.begun
	allowed := l.inventoried()
	ended, reverted := map[int64]string{}, map[string]bool{}
	states := map[int64]map[journal.State]bool{}
	for i, w := range writes {
		switch {
		case w.Head != nil && w.Applied:
			l.checkTransition(h, *w.Head)
			if r := w.Head.Release; r != nil {
				if h.Release == nil && h.Quarantined(r.Commit) || reverted[r.Commit] {
					l.violate("rule 9: %.10s is released again, although it failed here", r.Commit)
				}
				if states[r.Number] == nil {
					states[r.Number] = map[journal.State]bool{}
				}
				states[r.Number][w.Head.State] = true
			}
			if o := w.Head.Last; o != nil {
				ended[o.Number] = o.Outcome
				reverted[o.Commit] = reverted[o.Commit] || o.Outcome == string(v1alpha1.Reverted)
			}
			h = *w.Head
		case w.Head != nil:
		case w.Step == proxy.Projection && w.Applied:
			l.checkProjection(w, ended)
		case w.Namespace == l.system, w.Step == proxy.Unnumbered, w.Step == proxy.Projection, w.DryRun:
		default:
			if w.Step == proxy.Repair && !excused(w, writes[:i]) {
				l.violate("I4: %s while no release was open, and there was nothing to repair", w)
			}
			l.checkWrite(w, h, allowed)
		}
	}
	for n, s := range states {
		if s[journal.Committed] && s[journal.Aborting] {
			l.violate("I1: release %d was both decided and undone", n)
		}
	}
}

// checkTransition: I1, and that no step of the head's life is left out.
func (l *lane) checkTransition(from, to journal.Head) {
	if to.Epoch <= from.Epoch {
		l.violate("I1: the epoch of the head went from %d to %d", from.Epoch, to.Epoch)
	}
	next := map[journal.State][]journal.State{
		"": {journal.Idle}, journal.Idle: {journal.Idle, journal.Prepared}, journal.Prepared: {journal.Prepared, journal.Committed, journal.Aborting},
		journal.Committed: {journal.Committed, journal.Idle}, journal.Aborting: {journal.Aborting, journal.Idle},
	}
	if !slices.Contains(next[from.State], to.State) {
		l.violate("I1: the head went from %s to %s", from.State, to.State)
	}
}

// inventoried are the objects that the environment may write: those of the old and the new set.
func (l *lane) inventoried() map[string]bool {
	allowed := map[string]bool{}
	for name := range l.old {
		allowed[name] = true
	}
	for name := range l.new {
		allowed[strings.ReplaceAll(name, "GROUP", l.group)] = true
	}
	if l.options.outside {
		allowed["Namespace/"+l.outside()], allowed["ConfigMap/within"] = true, true
	}
	return allowed
}

// checkWrite: I3, rule 8, and the preconditions of rule 5.
func (l *lane) checkWrite(w proxy.Write, h journal.Head, allowed map[string]bool) {
	var u unstructured.Unstructured
	var precondition metav1.DeleteOptions
	switch w.Verb {
	case "apply", "patch", "update":
		if err := json.Unmarshal(w.Body, &u.Object); err != nil {
			l.violate("I3: %s: %v", w, err)
			return
		}
		name := u.GetKind() + "/" + u.GetName()
		known := allowed[name]
		if w.Verb == "patch" { // which names no kind
			for one := range allowed {
				known = known || strings.HasSuffix(one, "/"+w.Name)
			}
		}
		if !known {
			l.violate("I3: %s is in no inventory: %s", name, w)
		}
		if version := u.GetResourceVersion(); version == "" || version != "1" && u.GetUID() == "" {
			l.violate("rule 5: %s names uid %q and resourceVersion %q", w, u.GetUID(), version)
		}
	case "delete":
		if err := json.Unmarshal(w.Body, &precondition); err != nil || precondition.Preconditions == nil || precondition.Preconditions.UID == nil || precondition.Preconditions.ResourceVersion == nil {
			l.violate("rule 5: %s has no preconditions", w)
		}
		if h.State == journal.Prepared && !slices.Contains(goEarly, w.Name) {
			l.violate("rule 8: %s before the decision", w)
		}
	default:
		l.violate("rule 5: %s is neither an apply, an update nor a deletion", w)
	}
}

// goEarly may be deleted before the decision: what is made anew, and what must be gone before its successor comes.
var goEarly = []string{"fixed", "legacy"}

// checkProjection: no outcome is shown before the head has it (I9, rule 10).
func (l *lane) checkProjection(w proxy.Write, ended map[int64]string) {
	if !strings.HasPrefix(w.Resource, "releases.") {
		return
	}
	var r v1alpha1.Release
	if err := json.Unmarshal(w.Body, &r); err != nil || r.Status.Outcome == "" || r.Status.Outcome == v1alpha1.Refused {
		return
	}
	if before := l.begun.Last; before != nil && r.Spec.Number <= before.Number {
		return
	}
	if ended[r.Spec.Number] != string(r.Status.Outcome) {
		l.violate("I9: Release %s was shown as %s while the head said %q", r.Name, r.Status.Outcome, ended[r.Spec.Number])
	}
}

// checkWorld checks what is there at the end: I2, I5 and I10.
func (l *lane) checkWorld(ctx context.Context, commit string) (end string) {
	w, err := l.look(ctx)
	if err != nil {
		l.violate("look at the lane: %v", err)
		return "?"
	}
	h, err := l.journal.Head(ctx)
	if err != nil {
		l.violate("I2: read the head: %v", err)
		return "?"
	}
	if h.State != journal.Idle || h.Good == nil {
		l.violate("I2: the head is %s", h.State)
		return "?"
	}
	end, golden := "old", l.old
	if h.Good.Commit == commit {
		end, golden = "new", l.new
		if l.withdrawn {
			end, golden = "old", l.old
		}
	}
	found := w.generalized(l.group)
	if l.replaced["theirs"] { // what was to be adopted, or given back, is not what it was
		delete(found, "ConfigMap/theirs")
		golden = maps.Clone(golden)
		delete(golden, "ConfigMap/theirs")
	}
	if diff := difference(l.present(golden), found); diff != "" {
		l.violate("I2: the head says %s, but:\n%s", end, diff)
		other := map[string]map[string]string{"old": l.new, "new": l.old}[end]
		if difference(l.present(other), found) != "" {
			end = "mixed"
		}
	}
	l.checkSurvivors(w, end)
	inv, err := l.inventory(ctx, h)
	if missing := (*journal.MissingChunkError)(nil); l.lost == "inventory" && errors.As(err, &missing) {
		return end // what is ours cannot be told any more, which the next release will notice
	}
	if err != nil {
		l.violate("I5: %v", err)
		return end
	}
	for _, name := range w.labeled {
		if !inv[name] {
			l.violate("I5: %s has our label and is in no inventory", name)
		}
	}
	l.checkLeaks(ctx)
	return end
}

// present is a golden state without what only runs that bring a definition have.
func (l *lane) present(golden map[string]string) map[string]string {
	out := map[string]string{}
	for name, text := range golden {
		if l.group != "" || !strings.HasPrefix(name, "CustomResourceDefinition/") && !strings.HasPrefix(name, "Widget/") {
			out[name] = text
		}
	}
	return out
}

// checkSurvivors: what is in the old world and in the one that there is now is the same object (I2).
func (l *lane) checkSurvivors(w world, end string) {
	for name, uid := range l.before.uids {
		now, here := w.uids[name]
		_, short, _ := strings.Cut(name, "/")
		if here && now != uid && !slices.Contains(goEarly, short) && !l.replaced[short] {
			l.violate("I2: %s is another object than before (%s world)", name, end)
		}
	}
}

func (l *lane) inventory(ctx context.Context, h journal.Head) (map[string]bool, error) {
	b, err := l.journal.Load(ctx, h.Inventory)
	if err != nil {
		return nil, err
	}
	records, err := b.Inventory()
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, r := range records {
		names[r.Ref.Kind+"/"+r.Ref.Name] = true
	}
	return names, nil
}

// checkLeaks: no value of a Secret is in the log, in events, or in anything that is not a Secret (I10).
func (l *lane) checkLeaks(ctx context.Context) {
	hidden := [][]byte{[]byte(canary), []byte(strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(canary)), "=")[:20])}
	seen := func(where string, content []byte) {
		for _, secret := range hidden {
			if bytes.Contains(content, secret) {
				l.violate("I10: a Secret's value is in %s", where)
			}
		}
	}
	b, err := os.ReadFile(l.log)
	if err != nil {
		l.violate("I10: %v", err)
	}
	seen("the daemon's log", b)
	events, err := l.kube.EventsV1().Events(l.ns).List(ctx, metav1.ListOptions{})
	if err == nil {
		b, err = json.Marshal(events)
		seen("an event", b)
	}
	if err != nil {
		l.violate("I10: %v", err)
	}
	for what, list := range map[string]client.ObjectList{"an Environment": &v1alpha1.EnvironmentList{}, "a Release": &v1alpha1.ReleaseList{}} {
		if err := l.client.List(ctx, list, client.InNamespace(l.ns)); err != nil {
			l.violate("I10: %v", err)
			continue
		}
		if b, err = json.Marshal(list); err == nil {
			seen(what, b)
		}
	}
}
