package faults

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nexus-platform/reconciler/e2e/apicount"
	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/journal"
)

// excused reports that something happened before a write, made while the head was idle as far as the API server had answered, that a
// daemon has to repair: somebody changed an object, or a write of an earlier epoch arrived. Nothing else makes it write an object
// before the head says that a release is open (I4).
func excused(w proxy.Write, earlier []proxy.Write) bool {
	return slices.ContainsFunc(earlier, func(was proxy.Write) bool {
		switch was.Fault {
		case proxy.Edit, proxy.Delete, proxy.LoseNamespace:
			return true
		case proxy.Stop: // what it was about to write when it was stopped it sends when it wakes up: the preconditions fence it
			return true
		case proxy.Hold, proxy.Lose: // what its watches do not tell it, it believes to be as it was: the API server says no
			return w.Status == http.StatusNotFound || w.Status == http.StatusConflict
		}
		return was.Late && was.Applied && was.Arrived.Before(w.At)
	})
}

func TestAWriteBeforeTheHeadIsNoticed(t *testing.T) {
	now := time.Now()
	object := func(step proxy.Step) proxy.Write {
		return proxy.Write{
			Request: apicount.Request{Verb: "apply", Resource: "configmaps", Namespace: "lane", Name: fixtures[0]}, Step: step, At: now, Status: 200, Applied: true,
			Body: []byte(fmt.Sprintf(`{"kind":"ConfigMap","metadata":{"name":%q,"uid":"u","resourceVersion":"2"}}`, fixtures[0])),
		}
	}
	head := proxy.Write{Step: proxy.S3, Applied: true, At: now, Head: &journal.Head{State: journal.Prepared, Epoch: 2}}
	edited, late, lost := object(proxy.S2), object(proxy.S5), object(proxy.S5)
	stale, gone := object(proxy.S5), object(proxy.Repair)
	stale.Fault, gone.Status, gone.Applied = proxy.Hold, http.StatusNotFound, false
	edited.DryRun, edited.Fault = true, proxy.Edit
	late.Late, late.Arrived = true, now.Add(-time.Second)
	lost.Late, lost.Arrived = true, now.Add(time.Second)
	for name, c := range map[string]struct {
		writes  []proxy.Write
		noticed bool
	}{
		"before the head":                       {[]proxy.Write{object(proxy.Repair), head}, true},
		"after the head":                        {[]proxy.Write{head, object(proxy.S5)}, false},
		"a repair of what somebody changed":     {[]proxy.Write{edited, object(proxy.Repair)}, false},
		"a repair after a late write":           {[]proxy.Write{head, late, object(proxy.Repair)}, false},
		"before a late write has even arrived":  {[]proxy.Write{head, lost, object(proxy.Repair)}, true},
		"a dry run, which changes nothing":      {[]proxy.Write{func() proxy.Write { w := object(proxy.S2); w.DryRun = true; return w }(), head}, false},
		"while the head was not yet answered":   {[]proxy.Write{head, object(proxy.Repair)}, true},
		"by a stale cache, of what is gone":     {[]proxy.Write{head, stale, gone}, false},
		"by a stale cache, and done":            {[]proxy.Write{head, stale, object(proxy.Repair)}, true},
		"a repair before anybody changed a bit": {[]proxy.Write{object(proxy.Repair), edited}, true},
	} {
		l := &lane{old: map[string]string{"ConfigMap/" + fixtures[0]: ""}, begun: journal.Head{State: journal.Idle, Epoch: 1}}
		l.checkHistory(c.writes)
		noticed := slices.ContainsFunc(l.violations, func(v string) bool { return strings.HasPrefix(v, "I4: ") })
		if noticed != c.noticed || !noticed && len(l.violations) > 0 {
			t.Errorf("%s: %v", name, l.violations)
		}
	}
}
