package faults

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
)

// rows of the fault matrix, each with the modes that it is made of.
var rows = []struct {
	name  string
	modes []proxy.Mode
	of    string // sweep, where that is the fault
}{
	{name: "killed at a boundary, or before a request is sent", modes: []proxy.Mode{boundary, proxy.KillBefore}},
	{name: "killed after the server did it, before or after the answer", modes: []proxy.Mode{proxy.KillAfterApply, proxy.KillAfterAnswer}},
	{name: "SIGTERM", modes: []proxy.Mode{proxy.Terminate}},
	{name: "409", modes: []proxy.Mode{proxy.Conflict}},
	{name: "429, 500, 503", modes: []proxy.Mode{proxy.Throttled, proxy.Internal, proxy.Unavailable}},
	{name: "403, 422, a webhook denies: once", modes: proxy.Refusals},
	{name: "the same until somebody mends it", modes: proxy.Refusals, of: "lasting"},
	{name: "the connection breaks before", modes: []proxy.Mode{proxy.DropBefore}},
	{name: "done, but the answer is lost, torn, or 504", modes: []proxy.Mode{proxy.DropAnswer, proxy.TimedOut, proxy.HalfClose, proxy.Reset, proxy.CutJSON}},
	{name: "the write arrives when its sender has given up", modes: []proxy.Mode{proxy.Late, proxy.Withdraw}},
	{name: "no API server for a while", modes: []proxy.Mode{proxy.Away}},
	{name: "two daemons; the acting one stopped or killed", modes: []proxy.Mode{proxy.Stop, proxy.KillAfterApply}, of: "twins"},
	{name: "a clock that is off by an hour or ten years", modes: []proxy.Mode{proxy.KillAfterApply}, of: "clock"},
	{name: "stale reads, lost watch events", modes: []proxy.Mode{proxy.Hold, proxy.Lose}},
	{name: "the head is deleted", modes: []proxy.Mode{proxy.LoseHead}},
	{name: "a bundle is deleted", modes: []proxy.Mode{proxy.LoseBundle}},
	{name: "somebody edits the object", modes: []proxy.Mode{proxy.Edit}},
	{name: "somebody deletes the object", modes: []proxy.Mode{proxy.Delete}},
	{name: "somebody deletes a namespace of the release", modes: []proxy.Mode{proxy.LoseNamespace}, of: "namespace"},
	{name: "a newer commit arrives", modes: []proxy.Mode{proxy.Push}},
}

// boundary is the mode of a run that a failpoint ends.
const boundary proxy.Mode = "failpoint"

var columns = []struct {
	name  string
	steps []proxy.Step
}{
	{"S1, S2", []proxy.Step{proxy.S1, proxy.S2}}, {"S3", []proxy.Step{proxy.S3}}, {"S5", []proxy.Step{proxy.S5}}, {"S7", []proxy.Step{proxy.S7}},
	{"S11", []proxy.Step{proxy.S11}}, {"S12", []proxy.Step{proxy.S12}}, {"S13–S15", []proxy.Step{proxy.S13, proxy.Rest, proxy.Repair}},
	{"R1–R3", []proxy.Step{proxy.R1, proxy.R2, proxy.R3}},
}

// modeOf is what was done in a run, as the tables name it.
func (r result) modeOf() proxy.Mode {
	if strings.Contains(r.Case, " failpoint ") {
		return boundary
	}
	return r.Mode
}

// matrix writes how many runs of each cell ended as it demands, of how many; what has none is listed.
func matrix(w io.Writer, sweeps map[string]*results) {
	fmt.Fprint(w, "| fault |")
	for _, c := range columns {
		fmt.Fprintf(w, " %s |", c.name)
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|", len(columns)))
	var empty []string
	for _, row := range rows {
		fmt.Fprintf(w, "| %s |", row.name)
		for _, c := range columns {
			right, done := 0, 0
			for name, all := range sweeps {
				of, _, _ := strings.Cut(name, "-")
				if row.of != "" && !strings.HasPrefix(of, row.of) || row.of == "" && slices.Contains([]string{"lasting", "twins", "namespace", "baseline", "mutants", "recovery"}, of) || row.of == "" && strings.HasPrefix(of, "clock") {
					continue
				}
				for _, r := range all.all {
					if r.Fired > 0 && slices.Contains(row.modes, r.modeOf()) && slices.Contains(c.steps, r.Step) {
						done++
						if len(r.Violations) == 0 {
							right++
						}
					}
				}
			}
			if done == 0 {
				empty = append(empty, row.name+" at "+c.name)
				fmt.Fprint(w, " – |")
			} else {
				fmt.Fprintf(w, " %d of %d |", right, done)
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "\nEmpty: %s.\n", strings.Join(empty, "; "))
}

// printReport writes every figure of docs/reliability.md from the results in a folder, so far as they are of the daemon as it is now.
func printReport(w io.Writer, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "nexus-report-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	_, build, err := buildDaemon(scratch)
	if err != nil {
		return err
	}
	sweeps := map[string]*results{}
	var one []result // of faults one at a time
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		r := &results{done: map[string]bool{}, build: build}
		r.read(f)
		_ = f.Close() // it was only read
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
		sweeps[name] = r
		if strings.HasPrefix(name, "sweep") {
			one = append(one, r.all...)
		}
	}
	fmt.Fprintf(w, "Build %s.\n\n", build)
	table(w, one)
	starts(w, one)
	if r := sweeps["recovery"]; r != nil {
		beside(w, r.all)
	}
	fmt.Fprintln(w)
	matrix(w, sweeps)
	fmt.Fprintln(w)
	for _, name := range slices.Sorted(maps.Keys(sweeps)) {
		line(w, name, sweeps[name])
	}
	other := 0
	for _, name := range slices.Sorted(maps.Keys(sweeps)) {
		sweeps[name].failedOnce(w, name)
		other += sweeps[name].other
	}
	fmt.Fprintf(w, "%d results of other builds left out.\n", other)
	return nil
}

// line sums a sweep up.
func line(w io.Writer, name string, of *results) {
	ends := map[string]int{}
	right, fired, faults := 0, 0, 0
	var recovery []time.Duration
	for _, r := range of.all {
		ends[r.End]++
		if len(r.Violations) == 0 {
			right++
		}
		if r.Fired > 0 {
			fired++
			faults += r.Fired
			recovery = append(recovery, r.Recovery)
		}
	}
	fmt.Fprintf(w, "%s: %d runs, %d with their fault (%d faults), %d as demanded", name, len(of.all), fired, faults, right)
	if n := len(of.again); n > 0 {
		fmt.Fprintf(w, ", %d of them when done again", n)
	}
	fmt.Fprintf(w, "; ends %v", ends)
	if name != "mutants" {
		fmt.Fprintf(w, "; recovery p50 %s, p95 %s, max %s", percentile(recovery, 50), percentile(recovery, 95), percentile(recovery, 100))
	}
	if name == "soak" && right == len(of.all) && len(of.again) == 0 && right > 0 { // the rule of three
		fmt.Fprintf(w, "; with 95 %% confidence less than %.1f %% of such rounds fail", 300/float64(right))
	}
	fmt.Fprintln(w)
}
