package faults

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
)

// foundBaseline is found for the baseline.
func (l *lane) foundBaseline() error {
	if err := l.supervise(nil); err != nil {
		return err
	}
	for _, golden := range []struct {
		into *map[string]string
		set  map[string]string
	}{{&l.old, l.base()}, {&l.new, l.next(false)}} {
		l.push("golden", golden.set)
		w, err := l.still(30 * time.Second)
		if err != nil {
			return err
		}
		*golden.into = w.objects
	}
	if difference(l.old, l.new) == "" || len(l.old) < 5 {
		return fmt.Errorf("the baseline did not deploy: %d objects, then %d\n%s", len(l.old), len(l.new), tail(l.log, 10))
	}
	return l.baselineBack()
}

// still waits until nothing was written for three intervals, and looks.
func (l *lane) still(limit time.Duration) (world, error) {
	began := time.Now()
	for n, since := -1, time.Now(); time.Since(since) < 3*interval && time.Since(began) < limit; <-time.After(interval / 5) {
		if err := l.supervise(nil); err != nil {
			return world{}, err
		}
		if now := len(l.proxy.Writes()); now != n {
			n, since = now, time.Now()
		}
	}
	return l.look(l.t.Context())
}

// baselineBack deploys the base again. A busy machine may be still before it is done, so what is there counts.
func (l *lane) baselineBack() error {
	l.push("back", l.base())
	for began := time.Now(); ; {
		w, err := l.still(30 * time.Second)
		if err != nil || difference(l.old, w.objects) == "" {
			return err
		}
		if time.Since(began) > time.Minute {
			return errors.New("the baseline does not find back")
		}
	}
}

// baselineRun is run for the baseline: all that is asked is what is there in the end.
func (l *lane) baselineRun(name string, bad bool, plan proxy.Plan) (result, error) {
	r := result{Case: name, Mode: plan.Mode, Bad: bad}
	began := time.Now()
	l.proxy.Arm(plan)
	l.push("next", l.next(bad))
	_, err := l.still(12 * time.Second)
	l.proxy.Settle()
	if err != nil {
		return r, err
	}
	w, err := l.look(l.t.Context())
	if err != nil {
		return r, err
	}
	r.Fired, r.End = len(l.proxy.Fired()), "mixed"
	switch {
	case difference(l.old, w.objects) == "":
		r.End = "old"
	case difference(l.new, w.objects) == "":
		r.End = "new"
	}
	l.proxy.Arm()
	err = l.baselineBack()
	r.Took = time.Since(began)
	return r, err
}

// TestBaseline does the same faults to the baseline, and counts how often what is left is neither the old nor the new.
func TestBaseline(t *testing.T) {
	s := newSite(t)
	var runs []plannedRun
	for _, bad := range []bool{false, true} {
		for i := 1; i <= 22; i++ {
			for _, mode := range proxy.Wire {
				runs = append(runs, plannedRun{name: fmt.Sprintf("baseline bad=%t %s@%d", bad, mode, i), bad: bad, plans: []proxy.Plan{{Mode: mode, At: i}}})
			}
		}
	}
	if *full {
		runs = sample(t, runs, 40)
	} else { // those that show it
		runs = sample(t, slices.DeleteFunc(runs, func(r plannedRun) bool { return !r.bad }), 4)
	}
	runs = part(t, runs)
	until := bounded()
	into := openResults(t, "baseline")
	todo := make(chan plannedRun, len(runs))
	for _, r := range runs {
		if !into.done[r.name] {
			todo <- r
		}
	}
	close(todo)
	t.Run("faults", func(t *testing.T) {
		for i := range *lanes {
			t.Run(fmt.Sprintf("lane %d", i+1), func(t *testing.T) {
				t.Parallel()
				var l *lane
				for first := i == 0; first || !past(until); first = false {
					planned, more := <-todo
					if !more {
						return
					}
					var err error
					if l == nil {
						if l, err = newLane(t, s, laneOptions{baseline: true}); err != nil {
							t.Fatal(err)
						}
					}
					r, err := l.baselineRun(planned.name, planned.bad, planned.plans[0])
					into.add(t, r)
					if err != nil { // what it left, it cannot mend
						l.halt()
						l = nil
					}
				}
			})
		}
	})
	count := map[string]int{}
	for _, r := range into.all {
		count[fmt.Sprintf("bad=%t %s", r.Bad, r.End)]++
	}
	t.Logf("baseline: %d runs, end states %v", len(into.all), count)
	if count["bad=true mixed"] == 0 {
		t.Error("the baseline left nothing mixed: then this sweep sees nothing")
	}
}
