// Package bench measures the reconciler against a floor: a bare client-go loop that does only the applies that are needed, in the same run
// on the same control plane. `make bench` prints the figures; without flags it checks, at a small size, those that do not depend on the machine.
package bench

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nexus-platform/reconciler/e2e/apicount"
)

// sizes and full are the flags of `make bench`.
var (
	sizes = flag.String("sizes", "100", "numbers of objects to measure with, comma-separated")
	full  = flag.Bool("full", false, "also check what depends on the machine, and watch the daemon idle for a minute")
)

// report collects the lines of the table of one size.
type report struct {
	t testing.TB
	n int
}

// line prints one figure with its target. A target that is missed fails the test if it does not depend on the machine, or in a full run.
func (r report) line(what, figure, target string, ok, machine bool) {
	verdict := "ok"
	if !ok {
		verdict = "MISSED"
	}
	fmt.Printf("| %5d | %-52s | %-34s | %-40s | %s |\n", r.n, what, figure, target, verdict)
	if !ok && (!machine || *full) {
		r.t.Errorf("%s at N = %d: %s, want %s", what, r.n, figure, target)
	}
}

func (r report) note(what, figure string) { r.line(what, figure, "", true, true) }

func TestSpeed(t *testing.T) {
	fmt.Printf("%s, %d CPUs\n\n| N     | what | figure | target | |\n|---|---|---|---|---|\n", runtime.Version(), runtime.NumCPU())
	for _, text := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			t.Fatalf("-sizes: %v", err)
		}
		t.Run(text, func(t *testing.T) { measure(t, n) })
	}
}

func measure(t *testing.T, n int) {
	r := report{t: t, n: n}
	s := newSite(t)
	floor := s.floor(n)
	r.note("floor: server-side apply of all, 16 workers", fmt.Sprintf("%.2f s", floor.Seconds()))
	s.write(n, n)
	commit := s.push("all")
	s.start()
	s.follow(time.Second)
	end := s.released(commit)
	release := end.Sub(s.at(commit, "rendered"))
	ratio := release.Seconds() / floor.Seconds()
	r.note("render", s.message(commit, "rendered"))
	r.line("first release, without render", fmt.Sprintf("%.2f s, %.2f × the floor", release.Seconds(), ratio), "at most 2.4 × the floor", ratio <= 2.4, true)
	asked := s.proxy.Take()
	lists := apicount.Tally(asked, func(q apicount.Request) string {
		if q.Verb == "list" && managed(q) {
			return q.Resource + " " + q.Namespace
		}
		return ""
	})
	most := 0
	for _, count := range lists {
		most = max(most, count)
	}
	r.line("first release: LISTs per kind and namespace", fmt.Sprintf("%d (the watch begins with them)", most), "1", most <= 1, false)
	gets := count(asked, func(q apicount.Request) bool {
		return q.Verb == "get" && managed(q) && q.Name != "" && q.Resource != "namespaces"
	})
	r.line("first release: GETs of objects", strconv.Itoa(gets)+first(asked, func(q apicount.Request) bool {
		return q.Verb == "get" && managed(q) && q.Name != "" && q.Resource != "namespaces"
	}), "0", gets == 0, false)
	writes := count(asked, func(q apicount.Request) bool { return q.Verb == "apply" && managed(q) })
	r.line("first release: applies and dry-runs", strconv.Itoa(writes), "2 N", writes == 2*n, false)

	// Nothing new.
	passes := s.passes()
	s.until("five passes", func() bool { return s.passes() >= passes+5 })
	asked = s.proxy.Take()
	quiet := count(asked, func(q apicount.Request) bool { return !idle(q) && !settles(q) })
	r.line("pass with nothing new: requests", strconv.Itoa(quiet)+first(asked, func(q apicount.Request) bool { return !idle(q) && !settles(q) }), "0", quiet == 0, false)
	took := median(s.tooks(5))
	r.line("pass with nothing new: time, with the Git poll", took.Round(100*time.Microsecond).String(), "under 20 ms", took < 20*time.Millisecond, true)

	// One object.
	s.edit("cm-0", "changed")
	commit = s.push("one")
	end = s.released(commit)
	rendering := s.at(commit, "rendered").Sub(s.at(commit, "detected"))
	wall := end.Sub(s.at(commit, "detected"))
	s.settled()
	asked = s.proxy.Take()
	r.note("one object changed: render", s.message(commit, "rendered"))
	rest := wall - rendering
	r.line("one object changed: wall beyond the render", fmt.Sprintf("%.3f s", rest.Seconds()), "0.5 s", rest < 500*time.Millisecond, true)
	objects := count(asked, managed)
	r.line("one object changed: requests on managed objects", strconv.Itoa(objects)+first(asked, managed), "2", objects == 2, false)
	own, bytes := 0, int64(0)
	for _, q := range asked {
		if !managed(q) && !idle(q) && !strings.HasPrefix(q.Resource, "events") {
			own++
			bytes += q.Bytes.Load()
		}
	}
	// Where the record that changed ended a chunk, or ends one now, two chunks are new instead of one: at most in the set and in the inventory.
	allowed := keeping + 2
	r.line("one object changed: requests on journal and status", fmt.Sprintf("%d, %.1f KiB", own, float64(bytes)/1024), fmt.Sprintf("%d, 64 KiB", allowed), own <= allowed && bytes <= 64<<10, false)
	if own > allowed {
		t.Logf("\n%s", apicount.Lines(apicount.Tally(asked, func(q apicount.Request) string {
			if managed(q) || idle(q) {
				return ""
			}
			return q.Verb + " " + q.Resource
		})))
	}

	// Drift.
	var healed []time.Duration
	for i := range 10 {
		healed = append(healed, s.drift(fmt.Sprintf("cm-%d", i*7+1)))
	}
	slices.Sort(healed)
	r.line("drift by hand to healed, median of 10", healed[5].Round(time.Millisecond).String(), "under 0.3 s", healed[5] < 300*time.Millisecond, true)
	s.settled()
	asked = s.proxy.Take()
	applies := count(asked, func(q apicount.Request) bool { return q.Verb == "apply" && managed(q) })
	r.line("10 drifts: applies", strconv.Itoa(applies), "10", applies == 10, false)

	// Prune.
	s.write(n, n-n/10)
	s.edit("cm-0", "changed")
	commit = s.push("a tenth leaves")
	end = s.released(commit)
	s.settled()
	asked = s.proxy.Take()
	all := count(asked, func(q apicount.Request) bool {
		return !idle(q) && !strings.HasPrefix(q.Resource, "events")
	})
	// Every chunk of the set and of the inventory that loses a record is written anew, and where chunks end depends on UIDs.
	chunks := 1 + n/32
	r.line("prune of 10 %: requests", strconv.Itoa(all), fmt.Sprintf("%d deletes + %d, %d chunks", n/10, keeping, chunks), all <= n/10+keeping+chunks, false)
	r.note("prune of 10 %: wall beyond the render", fmt.Sprintf("%.2f s", end.Sub(s.at(commit, "rendered")).Seconds()))
	if all > n/10+keeping+chunks {
		t.Logf("\n%s", apicount.Lines(apicount.Tally(asked, func(q apicount.Request) string { return q.Verb + " " + q.Resource })))
	}

	// Idle.
	if *full {
		s.follow(15 * time.Second)
		s.settled()
		s.proxy.Take()
		cpu, began := s.cpu(), time.Now()
		<-time.After(time.Minute) // what is measured is a minute in which nothing happens
		used := (s.cpu() - cpu).Seconds() / time.Since(began).Seconds() * 100
		asked = s.proxy.Take()
		requests := count(asked, func(q apicount.Request) bool { return !strings.HasPrefix(q.Resource, "leases") })
		r.line("idle: CPU", fmt.Sprintf("%.2f %% of a core", used), "under 0.2 %", used < 0.2, true)
		r.line("idle: requests a minute beside the Lease", strconv.Itoa(requests), "under 5", requests < 5, false)
	}
	now, file, peak := s.memory()
	limit := map[bool]int{true: 100, false: 200}[n <= 1000]
	r.line("memory of the daemon", fmt.Sprintf("%d MiB, binary %d, peak %d", now, file, peak), fmt.Sprintf("under %d MiB", limit), now < limit, true)
	if t.Failed() {
		b, err := os.ReadFile(s.log)
		if err == nil {
			lines := strings.Split(string(b), "\n")
			t.Logf("end of the daemon's log:\n%s", strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	}
}

// keeping is how many requests a small release may cost beside those on its objects: its bundles, the head and its spare, status and Release.
const keeping = 13

// managed reports a request about what a release manages, not about what the reconciler keeps for itself.
func managed(q apicount.Request) bool { return strings.HasPrefix(q.Namespace, "bench-") }

// idle reports what goes on whatever happens: the Lease, and watches that are renewed.
func idle(q apicount.Request) bool {
	return strings.HasPrefix(q.Resource, "leases") || q.Verb == "watch"
}

// settles reports what still shows the end of a release.
func settles(q apicount.Request) bool {
	return strings.HasPrefix(q.Resource, "events") || strings.HasPrefix(q.Resource, "releases") || strings.HasPrefix(q.Resource, "environments")
}

func count(requests []apicount.Request, of func(apicount.Request) bool) (n int) {
	for _, q := range requests {
		if of(q) {
			n++
		}
	}
	return n
}

// first names, in brackets, the first of some requests.
func first(requests []apicount.Request, of func(apicount.Request) bool) string {
	if i := slices.IndexFunc(requests, of); i >= 0 {
		return " (" + requests[i].String() + ")"
	}
	return ""
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)/2]
}
