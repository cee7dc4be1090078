package faults

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// results are kept in a file, one JSON document a line, so that a sweep that was interrupted goes on.
type results struct {
	mu    sync.Mutex
	build string // of the daemon that is tested: what was found out about another is no result of this one
	all   []result
	done  map[string]bool
	again []result // failed once, passed when done again: they stay to be seen
	other int      // of other builds
	file  *os.File
}

func openResults(t *testing.T, name string) *results {
	t.Helper()
	r := &results{done: map[string]bool{}, build: newSite(t).build}
	if *state == "" {
		return r
	}
	if err := os.MkdirAll(*state, 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.file, err = os.OpenFile(filepath.Join(*state, name+".jsonl"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.file.Close() })
	if r.read(r.file); r.other > 0 {
		t.Logf("%d results of other builds left out", r.other)
	}
	return r
}

// read takes over what an earlier sweep wrote.
func (r *results) read(file io.Reader) {
	for lines := bufio.NewReader(file); ; {
		line, err := lines.ReadBytes('\n')
		var one result
		switch {
		case json.Unmarshal(line, &one) != nil: // the last line may be half written
		case one.Build != r.build:
			r.other++
		default:
			r.note(one)
		}
		if err != nil {
			return
		}
	}
}

// note takes a result in the place of an earlier one of the same run. What failed is done again, and stays known as failed once.
func (r *results) note(one result) {
	for _, was := range r.all {
		if was.Case == one.Case && len(was.Violations) > 0 && len(one.Violations) == 0 {
			r.again = append(r.again, was)
		}
	}
	r.all = append(slices.DeleteFunc(r.all, func(was result) bool { return was.Case == one.Case }), one)
	r.done[one.Case] = len(one.Violations) == 0
}

func (r *results) add(t *testing.T, one result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one.Build = r.build
	r.note(one)
	if r.file != nil {
		b, err := json.Marshal(one)
		if err == nil {
			_, err = r.file.Write(append(b, '\n'))
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// failedOnce tells of what failed and passed when it was done again.
func (r *results) failedOnce(w io.Writer, what string) {
	for _, one := range r.again {
		fmt.Fprintf(w, "%s: failed once, passed when done again: %s: %s\n", what, one.Case, strings.Join(one.Violations, "; "))
	}
}

func TestResultsOfOtherBuildsAndFailuresThatPassedLater(t *testing.T) {
	const kept = `{"case":"a","build":"this","violations":["I2: mixed"]}
{"case":"b","build":"other"}
{"case":"a","build":"this"}
{"case":"c","build":"this","violations":["I4: early"]}
{"case":"d"}
{"case":"e","bui`
	r := &results{done: map[string]bool{}, build: "this"}
	r.read(strings.NewReader(kept))
	if !r.done["a"] || r.done["b"] || r.done["c"] || r.done["d"] || len(r.all) != 2 || r.other != 2 {
		t.Errorf("taken over: %v, all %v, others %d", r.done, r.all, r.other)
	}
	var b strings.Builder
	r.failedOnce(&b, "sweep")
	line(&b, "sweep", r)
	for _, words := range []string{"failed once, passed when done again: a: I2: mixed", "1 as demanded, 1 of them when done again"} {
		if !strings.Contains(b.String(), words) {
			t.Errorf("the report does not say %q:\n%s", words, b.String())
		}
	}
}
