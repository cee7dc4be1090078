package journal

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nexus-platform/reconciler/object"
)

var unexported = cmp.AllowUnexported(Head{})

// complete is a head in which every field says something.
func complete() Head {
	mark := func(n int64) *Mark {
		return &Mark{Release: n, Commit: fmt.Sprintf("c%d", n), Source: "src", Set: "s", Policy: "p", At: noon, Ill: []string{"Deployment/shop/old"}}
	}
	return Head{
		Version: Version, Environment: "env", Epoch: 41, State: Aborting, Number: 9, Since: 1,
		Good: mark(8), Previous: mark(7), BakeUntil: noon.Add(time.Hour), Inventory: "i",
		Release: &Release{
			Number: 9, Commit: "c9", Kind: "deploy", By: "ada", Subject: "add a shop", BegunAt: noon, Epoch: 38, Request: "r",
			Source: "src", Set: "s", Plan: "p", Policy: "q", Images: "im", Before: "b", Phase: object.Application, PhaseBegan: noon.Add(time.Minute),
			Waiting: []string{"Deployment/shop/web: 1 of 3"}, Failure: &Failure{Reason: "Timeout", Phase: object.Application, Object: "o", Message: "m"},
		},
		Bad: []Bad{{Commit: "c6", Release: 6, Reason: "Timeout", At: noon}}, Pin: &Pin{Commit: "c8", By: "ada", At: noon},
		Last: &Outcome{
			Number: 8, Commit: "c8", Kind: "deploy", By: "ada", Subject: "s", BegunAt: noon, Outcome: "Succeeded", Reason: "r",
			Phase: object.Networking, Object: "o", Message: "m", FinishedAt: noon, Kept: []string{"PersistentVolumeClaim/shop/data"},
		},
		Request: "r",
	}
}

// empty finds a field that says nothing, so that a new field of the head cannot be forgotten by the tests.
func empty(v reflect.Value, path string) string {
	switch {
	case !v.IsValid() || v.IsZero():
		return path
	case v.Kind() == reflect.Pointer:
		return empty(v.Elem(), path)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		return empty(v.Index(0), path+"[0]")
	case v.Kind() != reflect.Struct || v.Type() == reflect.TypeFor[time.Time]():
		return ""
	}
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() {
			if found := empty(v.Field(i), path+"."+f.Name); found != "" {
				return found
			}
		}
	}
	return ""
}

func TestTheCompleteHeadHasEveryField(t *testing.T) {
	if field := empty(reflect.ValueOf(complete()), "Head"); field != "" {
		t.Fatalf("%s is empty", field)
	}
}

// walk drives a head through random transitions beside a model of what the protocol says of it.
type walk struct {
	t         *testing.T
	random    *rand.Rand
	h         Head
	committed map[int64]bool
	aborting  map[int64]bool
	began     int64 // epoch at which the open release began
	bad       map[string]bool
	did       []string
}

func (w *walk) commit() string { return fmt.Sprintf("%040x", w.random.IntN(70)) }

// text is what others may write: long, short, or made to be awkward in JSON.
func (w *walk) text() string {
	alphabet := []string{"a", "<", "\x00", "é", "💥", "\xff", `"`, "\\", "\n", "\u2028"}[w.random.IntN(10)]
	return strings.Repeat(alphabet, []int{0, 1, 39, 3000, 50_000}[w.random.IntN(5)])
}

func (w *walk) texts() []string {
	list := make([]string, []int{0, 1, 7, 400}[w.random.IntN(4)])
	for i := range list {
		list[i] = fmt.Sprintf("PersistentVolumeClaim/shop/claim-%d", i)
	}
	if len(list) > 0 {
		list[w.random.IntN(len(list))] = w.text()
	}
	return list
}

// step takes one of the transitions that the state allows.
func (w *walk) step() {
	now := noon.Add(time.Duration(w.h.Epoch) * time.Minute)
	type move struct {
		name string
		to   func() Head
	}
	moves := map[State][]move{
		Idle: {
			{"prepare", func() Head {
				rel := Release{
					Number: w.h.Number + 1, Commit: w.commit(), Kind: []string{"deploy", "rollback", "return", "delete"}[w.random.IntN(4)],
					By: w.text(), Subject: w.text(), BegunAt: now, Set: w.commit(), Plan: "plan", Before: w.h.Inventory,
				}
				var pin *Pin
				if rel.Kind == "rollback" {
					pin, rel.Request = &Pin{Commit: rel.Commit, By: w.text(), At: now}, "request-"+rel.Commit
				}
				return w.h.Prepare(rel, "union", pin)
			}},
			{"lift one", func() Head { return w.h.Lift(w.commit(), "request") }},
			{"lift all", func() Head { return w.h.Lift("", "request") }},
			{"quarantine", func() Head { return w.h.Quarantine(w.commit(), w.h.Number, Failure{Reason: w.text()}, now) }},
		},
		Prepared: {
			{"wait", func() Head { return w.h.Wait(object.Phases[w.random.IntN(8)], now, w.texts()) }},
			{"take over", func() Head { return w.h.TakeOver() }},
			{"commit", func() Head { return w.h.Commit() }},
			{"abort", func() Head {
				return w.h.Abort(Failure{Reason: w.text(), Phase: object.Application, Object: w.text(), Message: w.text()})
			}},
		},
		Committed: {
			{"take over", func() Head { return w.h.TakeOver() }},
			{"done", func() Head {
				mark := Mark{Release: w.h.Number, Commit: w.h.Release.Commit, Set: w.h.Release.Set, At: now, Ill: w.texts()}
				return w.h.Done(mark, w.text(), "after", now.Add(time.Hour), now)
			}},
		},
		Aborting: {
			{"take over", func() Head { return w.h.TakeOver() }},
			{"undone", func() Head {
				return w.h.Undone(Outcome{Outcome: "Reverted", Reason: w.text(), Object: w.text(), Message: w.text(), FinishedAt: now, Kept: w.texts()}, "before", true)
			}},
			{"superseded", func() Head {
				return w.h.Undone(Outcome{Outcome: "Superseded", Message: w.text(), FinishedAt: now}, "before", false)
			}},
		},
	}
	choices := moves[w.h.State]
	chosen := choices[w.random.IntN(len(choices))]
	was, err := json.Marshal(w.h)
	if err != nil {
		w.t.Fatal(err)
	}
	to := chosen.to()
	w.did = append(w.did, chosen.name)
	if is, _ := json.Marshal(w.h); string(is) != string(was) {
		w.fault("the head that it began with was changed")
	}
	w.check(chosen.name, to)
	w.h = to
}

func (w *walk) fault(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("after %s: %s", strings.Join(w.did[max(0, len(w.did)-8):], ", "), fmt.Sprintf(format, args...))
}

// check holds the transition from w.h to what head.go and the protocol say.
func (w *walk) check(did string, to Head) {
	from := w.h
	if err := Legal(from, to); err != nil {
		w.fault("the step is not legal: %v", err)
	}
	if to.Epoch != from.Epoch+1 {
		w.fault("the epoch went from %d to %d", from.Epoch, to.Epoch)
	}
	if opened := did == "prepare"; opened != (to.Number == from.Number+1) || !opened && to.Number != from.Number {
		w.fault("the number went from %d to %d", from.Number, to.Number)
	}
	w.remember(did, to)
	for n := range w.committed {
		if w.aborting[n] {
			w.fault("release %d was decided and undone", n)
		}
	}
	if to.Release != nil && to.Release.Epoch != w.began {
		w.fault("the stamp of the open release went from %d to %d", w.began, to.Release.Epoch)
	}
	w.checkMarks(did, from, to)
	w.checkBad(to)
	w.checkStored(to)
}

func (w *walk) remember(did string, to Head) {
	switch did {
	case "prepare":
		w.began = to.Epoch
		if to.Release.Request != "" { // of a person
			delete(w.bad, to.Release.Commit)
			if to.Quarantined(to.Release.Commit) || to.Pin == nil || to.Pin.Commit != to.Release.Commit || to.Request != to.Release.Request {
				w.fault("what a person asked for is held back: %v, pinned to %v", to.Bad, to.Pin)
			}
		}
	case "commit":
		w.committed[to.Number] = true
	case "abort":
		w.aborting[to.Number] = true
	case "undone":
		w.bad[w.h.Release.Commit] = true
		if w.h.Release.Request != "" && to.Pin != nil && to.Pin.Commit == w.h.Release.Commit {
			w.fault("it is pinned to what was undone")
		}
	case "quarantine":
		w.bad[to.Bad[len(to.Bad)-1].Commit] = true
	case "lift all":
		clear(w.bad)
	case "lift one":
		maps.DeleteFunc(w.bad, func(c string, _ bool) bool { return !to.Quarantined(c) && w.h.Quarantined(c) })
	}
}

func (w *walk) checkMarks(did string, from, to Head) {
	switch {
	case did == "done" && (to.Good.Release != to.Number || !w.committed[to.Number]):
		w.fault("the last good release is %d", to.Good.Release)
	case did != "done" && !cmp.Equal(from.Good, to.Good):
		w.fault("the last good release was changed")
	case to.Previous != nil && (!w.committed[to.Previous.Release] || to.Previous.Release >= to.Good.Release):
		w.fault("the previous release is %d, the last good one %d", to.Previous.Release, to.Good.Release)
	case (did == "done" || did == "undone") && from.Release.Kind == "return" && to.Previous != nil:
		w.fault("there is a previous release after one that went back")
	case to.State == Idle && to.Number > 0 && to.Last.Number != to.Number:
		w.fault("the last outcome is of release %d, the newest is %d", to.Last.Number, to.Number)
	case to.State == Idle && to.Number > 0 && (to.Last.Outcome == "Succeeded") != w.committed[to.Number]:
		w.fault("release %d ended as %s", to.Number, to.Last.Outcome)
	}
}

func (w *walk) checkBad(to Head) {
	if len(to.Bad) > badKept {
		w.fault("%d bad commits are kept", len(to.Bad))
	}
	seen := map[string]bool{}
	for _, b := range to.Bad {
		if seen[b.Commit] || !w.bad[b.Commit] {
			w.fault("%s is bad twice or for no reason", b.Commit)
		}
		seen[b.Commit] = true
	}
	if len(w.bad) <= badKept && len(seen) != len(w.bad) {
		w.fault("%d commits are bad, %d failed here", len(seen), len(w.bad))
	}
	if len(to.Bad) == badKept { // the oldest fell out of a full list
		w.bad = seen
	}
}

// checkStored: the head can always be written, and means the same when it is read.
func (w *walk) checkStored(to Head) {
	b, err := json.Marshal(to)
	if err != nil {
		w.fault("it cannot be written: %v", err)
	}
	if len(b) > maxHead {
		w.fault("it has %d bytes", len(b))
	}
	var back Head
	if err := json.Unmarshal(b, &back); err != nil {
		w.fault("it cannot be read: %v", err)
	}
	if diff := cmp.Diff(to, back, unexported, cmpopts.EquateEmpty()); diff != "" {
		w.fault("it is not what was written: %s", diff)
	}
}

func TestEveryTransitionKeepsTheInvariants(t *testing.T) {
	random := rand.New(seed(t))
	for range 20 {
		w := &walk{
			t: t, random: random, committed: map[int64]bool{}, aborting: map[int64]bool{}, bad: map[string]bool{},
			h: Head{Version: Version, Environment: "env", State: Idle}.First(0, time.Time{}),
		}
		w.did = append(w.did, "first")
		for range 200 {
			w.step()
		}
	}
}

func TestStepsThatTheProtocolHasNotAreRefused(t *testing.T) {
	idle := complete()
	idle.State, idle.Release, idle.Number = Idle, nil, 8
	open := idle.Prepare(Release{Number: 9, Commit: "c9", Kind: "deploy"}, "union", nil)
	committed, aborting := open.Commit(), open.Abort(Failure{Reason: "Timeout"})
	mark := Mark{Release: 9, Commit: "c9"}
	done := committed.Done(mark, "", "after", noon, noon)
	change := func(h Head, f func(*Head)) Head { f(&h); return h }
	tests := []struct {
		name     string
		from, to Head
	}{
		{"a release may not be decided before it is open", idle, change(committed, func(h *Head) { h.Epoch += 5 })},
		{"a release may not be undone before it is open", idle, change(aborting, func(h *Head) { h.Epoch += 5 })},
		{"an open release may not end without a decision", open, change(open, func(h *Head) { *h = h.next(Idle); h.Release = nil })},
		{"a decided release may not be undone", committed, change(aborting, func(h *Head) { h.Epoch += 5 })},
		{"a decided release may not be open again", committed, change(open, func(h *Head) { h.Epoch += 5 })},
		{"a release that is undone may not be decided", aborting, change(committed, func(h *Head) { h.Epoch += 5 })},
		{"a release that is undone may not go on", aborting, change(open, func(h *Head) { h.Epoch += 5 })},
		{"a state that nobody knows", open, open.next("resting")},
		{"the epoch may not stand still", open, change(open, func(h *Head) { h.Release.Phase = object.Database })},
		{"the epoch may not go back", open, change(open, func(h *Head) { h.Epoch-- })},
		{"the environment may not change", open, change(open.TakeOver(), func(h *Head) { h.Environment = "other" })},
		{"an idle head has no open release", committed, change(done, func(h *Head) { h.Release = committed.Release })},
		{"an open head has its release", open, change(open.TakeOver(), func(h *Head) { h.Release = nil })},
		{"a release may not replace an open one", open, open.Prepare(Release{Number: 10}, "", nil)},
		{"a release number is never used twice", idle, idle.Prepare(Release{Number: 8}, "", nil)},
		{"a release number does not go back", idle, idle.Prepare(Release{Number: 3}, "", nil)},
		{"the newest number may not fall", idle, change(idle.Lift("", ""), func(h *Head) { h.Number = 2 })},
		{"the newest number may not rise without a release", idle, change(idle.Lift("", ""), func(h *Head) { h.Number = 12 })},
		{"the newest number is that of the open release", idle, change(idle.Prepare(Release{Number: 9}, "", nil), func(h *Head) { h.Number = 11 })},
		{"an undone release does not become the last good one", aborting, change(aborting.Undone(Outcome{}, "", true), func(h *Head) { h.Good = &mark })},
		{"an open release is not the last good one", open, change(open.Commit(), func(h *Head) { h.Good = &mark })},
		{"another release does not become the last good one", committed, change(done, func(h *Head) { h.Good = &Mark{Release: 4} })},
		{"the last good release is not forgotten", idle, change(idle.Lift("", ""), func(h *Head) { h.Good = nil })},
		{"what is undone has a reason", open, open.next(Aborting)},
		{"what is not undone has none", aborting, aborting.next(Prepared)},
		{"what is decided has none", open, change(open.Commit(), func(h *Head) { h.Release = aborting.Release })},
		{"the id of a request is bounded", idle, idle.Lift("", strings.Repeat("r", maxRequest+1))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := Legal(tt.from, tt.to); err == nil {
				t.Error("it is allowed")
			}
		})
	}
	for name, step := range map[string][2]Head{
		"open": {idle, open}, "commit": {open, committed}, "abort": {open, aborting}, "done": {committed, done},
		"undone": {aborting, aborting.Undone(Outcome{}, "", true)}, "take over": {committed, committed.TakeOver()},
		"the longest id of a request": {idle, idle.Lift("", strings.Repeat("r", maxRequest))},
	} {
		if err := Legal(step[0], step[1]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatBecomesPreviousAndGood(t *testing.T) {
	h := Head{State: Idle}.First(0, time.Time{})
	release := func(h Head, kind, commit, set, policy string) Head {
		h = h.Prepare(Release{Number: h.Number + 1, Commit: commit, Kind: kind}, "", nil).Commit()
		return h.Done(Mark{Release: h.Number, Commit: commit, Set: set, Policy: policy, Ill: []string{"Pod/x"}}, "", "", noon, noon)
	}
	marks := func(h Head) string {
		previous := "none"
		if h.Previous != nil {
			previous = h.Previous.Commit
		}
		return h.Good.Commit + " after " + previous
	}
	expect := func(what string, h Head, want string) {
		t.Helper()
		if got := marks(h); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	a := release(h, "deploy", "a", "s1", "")
	expect("the first release", a, "a after none")
	b := release(a, "deploy", "b", "s2", "")
	expect("the second release", b, "b after a")
	expect("a release of the same objects is nothing to go back from", release(b, "deploy", "c", "s2", ""), "c after a")
	expect("a release of the same objects by another policy", release(b, "deploy", "c", "s2", "p"), "c after b")
	expect("a rollback", release(b, "rollback", "a", "s1", ""), "a after b")
	expect("a return", release(b, "return", "a", "s1", ""), "a after none")
	if b.Previous.Ill != nil || b.Good.Ill == nil || a.Good.Ill == nil {
		t.Error("what was ill is kept for the last good release, and only for it")
	}
}

func TestACommitThatFailedIsRememberedOnceAndForgottenWhenAsked(t *testing.T) {
	h := Head{State: Idle}.First(0, time.Time{})
	for i := range badKept + 1 {
		h = h.Quarantine(fmt.Sprintf("c%d", i), int64(i), Failure{Reason: "Timeout"}, noon)
	}
	if h.Quarantined("c0") || !h.Quarantined("c1") || len(h.Bad) != badKept {
		t.Errorf("%d commits are kept", len(h.Bad))
	}
	again := h.Quarantine("c1", 77, Failure{Reason: "CheckFailed"}, noon)
	if last := again.Bad[badKept-1]; len(again.Bad) != badKept || last.Release != 77 || last.Reason != "CheckFailed" || last.Commit != "c1" {
		t.Errorf("the newest is %+v of %d", last, len(again.Bad))
	}
	if h.Quarantined("") {
		t.Error("no commit is bad")
	}
	h.Pin = &Pin{Commit: "c1"}
	one := h.Lift("c1", "r1")
	if one.Quarantined("c1") || !one.Quarantined("c2") || one.Pin != nil || one.Request != "r1" {
		t.Errorf("after one was lifted: %+v", one)
	}
	if all := h.Lift("", "r2"); len(all.Bad) != 0 || all.Pin != nil {
		t.Errorf("after all were lifted: %+v", all)
	}
}

func TestAWaitIsToldInTheHeadAndNoMore(t *testing.T) {
	open := Head{State: Idle}.First(0, time.Time{}).Prepare(Release{Number: 1}, "", nil)
	first := open.Wait(object.Database, noon, []string{"a", "b"})
	second := first.Wait(object.Application, noon.Add(time.Minute), []string{"c"})
	if diff := cmp.Diff([]string{"a", "b"}, first.Release.Waiting); diff != "" || first.Release.Phase != object.Database {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"c"}, second.Release.Waiting); diff != "" || !second.Release.PhaseBegan.Equal(noon.Add(time.Minute)) {
		t.Error(diff)
	}
	if open.Release.Waiting != nil {
		t.Error("the head before was changed")
	}
}

func TestAReleaseLeavesItsRequestAndItsPin(t *testing.T) {
	idle := Head{State: Idle, Request: "old", Pin: &Pin{Commit: "x"}}.First(0, time.Time{})
	plain := idle.Prepare(Release{Number: 1, Commit: "c"}, "union", nil)
	if plain.Request != "old" || plain.Pin.Commit != "x" || plain.Inventory != "union" {
		t.Errorf("without a request: %+v", plain)
	}
	asked := idle.Prepare(Release{Number: 1, Commit: "c", Request: "new"}, "union", &Pin{Commit: "c", By: "ada", At: noon})
	if diff := cmp.Diff(&Pin{Commit: "c", By: "ada", At: noon}, asked.Pin); diff != "" || asked.Request != "new" {
		t.Errorf("with a request: %q %s", asked.Request, diff)
	}
}

func TestATextIsCutWhereItDoesNotFit(t *testing.T) {
	tests := []struct {
		name, in, want string
		limit          int
	}{
		{"what fits stays", "abc", "abc", 5},
		{"what does not fit ends with an ellipsis", "abcd", "…", 5},
		{"up to the limit", "abcdefgh", "abc…", 8},
		{"a character is not cut", "éééééé", "é…", 8},
		{"an escape counts as what it becomes", "<<<<", "<…", 16},
		{"what is no text is replaced", "a\xff", "a\uFFFD", 10},
		{"nothing stays nothing", "", "", 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := clip(tt.in, tt.limit); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	random := rand.New(seed(t))
	w := walk{random: random}
	for range 500 {
		in, limit := w.text()+w.text(), 5+random.IntN(1200)
		out := clip(in, limit)
		if quoted(out) > limit || !utf8.ValidString(out) {
			t.Fatalf("%.40q… of %d bytes became %d bytes, the limit is %d", in, len(in), quoted(out), limit)
		}
		if !strings.HasPrefix(strings.ToValidUTF8(in, "\uFFFD"), strings.TrimSuffix(out, "…")) {
			t.Fatalf("%.40q became %.40q", in, out)
		}
	}
}

func TestAListIsCutAndSaysHowMuchIsMissing(t *testing.T) {
	if got := some(nil, waitingKept); got != nil {
		t.Errorf("nothing became %q", got)
	}
	few := []string{"a", "b"}
	if diff := cmp.Diff(few, some(few, waitingKept)); diff != "" {
		t.Error(diff)
	}
	many := slices.Repeat([]string{strings.Repeat("x", 100)}, 1000)
	got := some(many, waitingKept)
	b, _ := json.Marshal(got)
	if len(b) > waitingKept || len(b) < waitingKept/2 || got[len(got)-1] != fmt.Sprintf("and %d more", 1000-len(got)+1) {
		t.Errorf("%d of %d bytes, the last: %s", len(got), len(b), got[len(got)-1])
	}
}

// A head over its bound could not be written any more, and its release would stand still for ever.
func TestTheHeadFitsWhateverOthersWrite(t *testing.T) {
	for name, letter := range map[string]string{"letters": "x", "escapes": "<", "control characters": "\x00", "wide characters": "💥", "no text": "\xff"} {
		t.Run(name, func(t *testing.T) {
			long := strings.Repeat(letter, 5000)
			list := slices.Repeat([]string{long}, 300)
			commit, digest := strings.Repeat("c", 64), strings.Repeat("d", 64)
			why := Failure{Reason: long, Phase: object.Infrastructure, Object: long, Message: long}
			h := Head{Environment: "9a0c7d2e-3b1f-4c5d-8e6f-7a8b9c0d1e2f", State: Idle, Number: 1e9}.First(0, time.Time{})
			for i := range badKept {
				h = h.Quarantine(fmt.Sprintf("%064d", i), 1e9, why, noon)
			}
			size := 0
			for range 2 {
				rel := Release{
					Number: h.Number + 1, Commit: commit, Kind: "rollback", By: long, Subject: long, BegunAt: noon, Request: strings.Repeat("r", maxRequest),
					Set: digest + letter, Plan: digest, Policy: digest, Images: digest, Before: digest,
				}
				h = h.Prepare(rel, digest, &Pin{Commit: commit, By: long, At: noon}).Wait(object.Infrastructure, noon, list)
				aborting := h.Abort(why)
				undone := aborting.Undone(Outcome{Outcome: "Reverted", Reason: long, Phase: object.Infrastructure, Object: long, Message: long, FinishedAt: noon, Kept: list}, digest, true)
				done := h.Commit().Done(Mark{Release: h.Number, Commit: commit, Set: fmt.Sprint(h.Number), Policy: digest, At: noon, Ill: list}, long, digest, noon, noon)
				done.Last.Kept = undone.Last.Kept // the worst of both
				for _, each := range []Head{aborting, undone, done} {
					b, err := json.Marshal(each)
					if err != nil {
						t.Fatal(err)
					}
					size = max(size, len(b))
				}
				h = done
			}
			if size > maxHead-2<<10 {
				t.Errorf("%d bytes, the bound is %d and wants some air", size, maxHead)
			}
		})
	}
}
