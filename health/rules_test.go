package health

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func parse(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestRulesOfThePolicyJudgeTheirKind(t *testing.T) {
	widget := Rule{
		Group: "example.com", Kind: "Widget",
		Healthy: `object.status.size == object.spec.size && quantity(object.status.memory).isLessThan(quantity("1Gi"))`,
		Failed:  `object.status.phase == "Broken"`,
		Message: `"size " + string(object.status.size)`,
	}
	for name, c := range map[string]struct {
		rule         Rule
		object       string
		state        State
		reason, says string
		neverSays    string
		generation   int64
	}{
		"healthy where the expression is true": {
			rule: widget, object: `{"spec":{"size":2},"status":{"size":2,"memory":"100Mi","phase":"Up"}}`,
			state: Healthy, reason: "RuleHealthy", says: "size 2",
		},
		"progressing where it is false": {
			rule: widget, object: `{"spec":{"size":2},"status":{"size":2,"memory":"2Gi","phase":"Up"}}`,
			state: Progressing, reason: "RuleNotHealthy", says: "size 2",
		},
		"failed before healthy": {
			rule: widget, object: `{"spec":{"size":2},"status":{"size":2,"memory":"100Mi","phase":"Broken"}}`,
			state: Failed, reason: "RuleFailed", says: "size 2",
		},
		"undecided while the field is not there": {
			rule: widget, object: `{"spec":{"size":2}}`, state: Progressing, reason: "RuleUndecided", says: "no such key: status",
		},
		"undecided where the answer is no truth value": {
			rule: Rule{Group: "example.com", Kind: "Widget", Healthy: "object.status.size"}, object: `{"status":{"size":2}}`,
			state: Progressing, reason: "RuleUndecided", says: "not bool",
		},
		"undecided where it costs too much": {
			rule:   Rule{Group: "example.com", Kind: "Widget", Healthy: "object.l.all(a, object.l.all(b, object.l.all(c, a + b + c > 0)))"},
			object: `{"l":[` + strings.Repeat("1,", 299) + `1]}`,
			state:  Progressing, reason: "RuleUndecided", says: "cost limit",
		},
		"asked only at the generation that was applied": {
			rule: Rule{Group: "example.com", Kind: "Widget", Healthy: "true"}, object: `{"status":{}}`, generation: 5,
			state: Progressing, reason: "Stale",
		},
		"asked only once the controller has seen the generation": {
			rule: Rule{Group: "example.com", Kind: "Widget", Healthy: "true"}, object: `{"status":{"observedGeneration":1}}`, generation: 2,
			state: Progressing, reason: "Unobserved",
		},
		"its message is a line that a terminal can show": {
			rule:   Rule{Group: "example.com", Kind: "Widget", Healthy: "false", Message: "object.text"},
			object: `{"text":"one\n\u001b[31mtwo ` + strings.Repeat("x", 5000) + `"}`,
			state:  Progressing, reason: "RuleNotHealthy", says: "one [31mtwo xxx", neverSays: "\x1b",
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := parse(t, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w","generation":2},`+c.object[1:])
			v := newJudge(t, c.rule).Judge(u, Expectation{Generation: c.generation}, nil)
			if v.State != c.state || v.Reason != c.reason || !strings.Contains(v.Message, c.says) || c.neverSays != "" && strings.Contains(v.Message, c.neverSays) {
				t.Errorf("got %s %s: %s", v.State, v.Reason, v.Message)
			}
			if len([]rune(v.Message)) > messageLength {
				t.Errorf("the message has %d characters", len(v.Message))
			}
		})
	}
}

func TestARuleReplacesWhatIsKnownOfAKind(t *testing.T) {
	ingress := parse(t, `{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":"web"},"status":{}}`)
	j := newJudge(t, Rule{Group: "networking.k8s.io", Kind: "Ingress", Healthy: "object.?status.loadBalancer.ingress.orValue([]).size() > 0"})
	if v := j.Judge(ingress, Expectation{}, nil); v.State != Progressing {
		t.Errorf("an ingress that must have an address is %s without one", v.State)
	}
	if v := newJudge(t).Judge(ingress, Expectation{}, nil); v.State != Healthy {
		t.Errorf("an ingress that need not have an address is %s: %s", v.State, v.Message)
	}
}

func TestARuleDoesNotHideAPodThatWillNotStart(t *testing.T) {
	s := readScene(t, "testdata/deployment/third-crash.yaml")
	j := newJudge(t, Rule{Group: "apps", Kind: "Deployment", Healthy: "object.status.readyReplicas == 4"})
	if v := j.Judge(s.live, s.want, s.world); v.Reason != "CrashLoopBackOff" || !v.Fatal {
		t.Errorf("got %s %s", v.State, v.Reason)
	}
}

func TestARuleOnSecretsNeverSaysWhatIsInThem(t *testing.T) {
	const content = "hunter2"
	secret := parse(t, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"db"},"stringData":{"n":"`+content+`"}}`)
	for _, expression := range []string{`int(object.stringData.n) > 0`, `duration(object.stringData.n) > duration("1s")`, `object.stringData[object.stringData.n] == ""`, `false`} {
		v := newJudge(t, Rule{Kind: "Secret", Healthy: expression, Message: "object.stringData.n"}).Judge(secret, Expectation{}, nil)
		if text := fmt.Sprintf("%+v", v); strings.Contains(text, content) {
			t.Errorf("%s: %s", expression, text)
		}
	}
}

func TestAWrongRuleIsRefusedByName(t *testing.T) {
	good := Rule{Group: "example.com", Kind: "Widget", Healthy: "true"}
	for name, c := range map[string]struct {
		rules []Rule
		says  []string
	}{
		"no expression":              {[]Rule{{Kind: "Widget"}}, []string{"spec.health.rules[0] (Widget)", "healthy is empty"}},
		"an expression cut short":    {[]Rule{good, {Group: "b.io", Kind: "W", Healthy: "object."}}, []string{"rules[1] (W.b.io)", "healthy: ", "Syntax error"}},
		"an unknown variable":        {[]Rule{{Kind: "W", Healthy: "true", Failed: "self.x"}}, []string{"failed: ", "undeclared reference to 'self'"}},
		"a number for a truth value": {[]Rule{{Kind: "W", Healthy: "1 + 1"}}, []string{"healthy: gives int, not bool"}},
		"a truth value for a text":   {[]Rule{{Kind: "W", Healthy: "true", Message: "true"}}, []string{"message: gives bool, not string"}},
		"two rules for one kind":     {[]Rule{good, good}, []string{"rules[1]", "Widget.example.com has a rule already"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewJudge(Rules{CEL: c.rules}, time.Now)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q is not in: %v", s, err)
				}
			}
		})
	}
}

func TestNoCrashIsForgivenWhereThePolicySaysSo(t *testing.T) {
	j, err := NewJudge(Rules{CrashTolerance: 0}, func() time.Time { return noon })
	if err != nil {
		t.Fatal(err)
	}
	s := readScene(t, "testdata/deployment/second-pod-shows-the-failure.yaml")
	s.world.pods = s.world.pods[1:] // the one that crashed once
	if v := j.Judge(s.live, s.want, s.world); !v.Fatal || v.Pod == nil || v.Pod.Name != "web-2-a" {
		t.Errorf("got %+v", v)
	}
}

func TestTheSoonestEndOfAGraceIsToldOfSeveralPods(t *testing.T) {
	s := readScene(t, "testdata/deployment/unschedulable-within-grace.yaml")
	running := readScene(t, "testdata/deployment/crashed-long-ago-and-is-not-ready.yaml").world.pods[0]
	running.Name = "web-2-0"
	older := s.world.pods[0].DeepCopy()
	older.Name, older.Status.Conditions[0].LastTransitionTime.Time = "web-2-z", noon.Add(-25*time.Second)
	s.world.pods = append(s.world.pods, running, older)
	if v := newJudge(t).Judge(s.live, s.want, s.world); v.Again != 5*time.Second {
		t.Errorf("judge again in %s: %s", v.Again, v.Message)
	}
}

func TestWithoutAWorldNoPodIsSeen(t *testing.T) {
	for _, path := range scenes(t) {
		s := readScene(t, path)
		if v := newJudge(t).Judge(s.live, s.want, nil); v.Pod != nil || v.State == "" || v.Ref.Name != s.live.GetName() {
			t.Errorf("%s: %+v", path, v)
		}
	}
}

func TestAStatusThatKstatusPanicsAtIsUnreadable(t *testing.T) {
	u := parse(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"status":{"phase":"Running","containerStatuses":["none"]}}`)
	if v := byStatus(u); v.Reason != "UnreadableStatus" || v.State != Progressing {
		t.Errorf("kstatus: %+v", v)
	}
	if v := newJudge(t).Judge(u, Expectation{}, &around{}); v.Reason != "NotReady" {
		t.Errorf("judge: %+v", v)
	}
}

func TestCompareSaysWhatIsWorseThanBefore(t *testing.T) {
	at := func(s State, reason string) Verdict { return Verdict{State: s, Reason: reason} }
	for name, c := range map[string]struct {
		before, now Verdict
		want        int
	}{
		"still healthy":                        {at(Healthy, "Ready"), at(Healthy, "Current"), 0},
		"healed":                               {at(Failed, "CrashLoopBackOff"), at(Healthy, "Ready"), -1},
		"fell ill":                             {at(Healthy, "Ready"), at(Progressing, "LessReady"), 1},
		"failed where it only waited":          {at(Progressing, "LessReady"), at(Failed, "ImagePullBackOff"), 1},
		"as ill as it was, for another reason": {at(Failed, "ImagePullBackOff"), at(Failed, "CrashLoopBackOff"), 0},
		"waits where it had failed":            {at(Failed, "CrashLoopBackOff"), at(Progressing, "LessReady"), -1},
		"went missing":                         {at(Failed, "CrashLoopBackOff"), at(Missing, "Missing"), 1},
		"was missing and is missing":           {at(Missing, "Missing"), at(Missing, "Missing"), 0},
	} {
		got := Compare(c.before, c.now)
		if got < 0 != (c.want < 0) || got > 0 != (c.want > 0) {
			t.Errorf("%s: %d, want the sign of %d", name, got, c.want)
		}
	}
}

func FuzzJudgeNeverPanics(f *testing.F) {
	for _, path := range scenes(f) {
		s := readScene(f, path)
		body, err := json.Marshal(s.live.Object)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body, int64(1))
	}
	j := newJudge(f, Rule{Group: "example.com", Kind: "Ruled", Healthy: "object.status.ok", Failed: "object.status.bad", Message: "object.status.text"})
	world := readScene(f, "testdata/deployment/third-crash.yaml").world
	states := map[State]bool{Healthy: true, Progressing: true, Failed: true}
	f.Fuzz(func(t *testing.T, body []byte, generation int64) {
		u := &unstructured.Unstructured{}
		if u.UnmarshalJSON(body) != nil {
			var m map[string]any // floats in place of whole numbers, lists as objects: what a careless decoder gives
			if json.Unmarshal(body, &m) != nil || m == nil {
				return
			}
			u.Object = m
		}
		for _, kind := range append(knownKinds(), "", "Ruled.example.com") {
			name, group, _ := strings.Cut(kind, ".")
			if kind != "" {
				u.Object["kind"], u.Object["apiVersion"] = name, strings.TrimPrefix(group+"/v1", "/")
			}
			v := j.Judge(u, Expectation{Generation: generation}, world)
			if !states[v.State] || v.Reason == "" || len([]rune(v.Message)) > messageLength || strings.ContainsAny(v.Message+v.Reason, "\n\x1b\x00") {
				t.Errorf("%s: %+v", kind, v)
			}
		}
	})
}

func knownKinds() (names []string) {
	for kind := range kinds {
		names = append(names, kind)
	}
	return names
}
