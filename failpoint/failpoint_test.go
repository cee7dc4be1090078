package failpoint_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nexus-platform/reconciler/failpoint"
)

// A boundary that no code passes would make a sweep believe that it had tested it.
func TestEveryNameMarksABoundaryInTheSources(t *testing.T) {
	names, err := os.ReadFile("names.go")
	if err != nil {
		t.Fatal(err)
	}
	constants := regexp.MustCompile(`(?m)^\t(\w+) +Name = "([a-z-]+)"`).FindAllStringSubmatch(string(names), -1)
	if len(constants) != len(failpoint.All) {
		t.Errorf("All lists %d names, the constants are %d", len(failpoint.All), len(constants))
	}
	sources := sources(t)
	for _, c := range constants {
		if !strings.Contains(sources, "failpoint.Here(failpoint."+c[1]+")") {
			t.Errorf("no code passes %s", c[1])
		}
	}
}

// A rule that no code can leave out would make a sweep believe that it would notice.
func TestEveryRuleCanBeLeftOut(t *testing.T) {
	rules, err := os.ReadFile("rules.go")
	if err != nil {
		t.Fatal(err)
	}
	constants := regexp.MustCompile(`(?m)^\t(\w+) +Rule = "([a-z-]+)"`).FindAllStringSubmatch(string(rules), -1)
	if len(constants) != len(failpoint.Rules) {
		t.Errorf("Rules lists %d rules, the constants are %d", len(failpoint.Rules), len(constants))
	}
	sources := sources(t)
	for _, c := range constants {
		if !strings.Contains(sources, "failpoint.Without(failpoint."+c[1]+")") {
			t.Errorf("no code can leave out %s", c[1])
		}
	}
}

func sources(t *testing.T) string {
	t.Helper()
	var sources strings.Builder
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasPrefix(path, "../failpoint") {
			return err
		}
		b, err := os.ReadFile(path)
		sources.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sources.String()
}

// A step without a boundary would be one at which nothing is ever killed. What the protocol's steps are is read from the fault
// proxy, which tells what each write belongs to.
func TestEveryStepOfTheProtocolHasABoundary(t *testing.T) {
	steps, err := os.ReadFile("../e2e/faults/proxy/step.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`Step = "([SR][0-9]+)"`).FindAllStringSubmatch(string(steps), -1)
	if len(found) < 10 {
		t.Fatalf("only %d steps are known", len(found))
	}
	used := map[failpoint.Name]bool{}
	for _, s := range found {
		if len(failpoint.Steps[s[1]]) == 0 {
			t.Errorf("step %s has no boundary", s[1])
		}
		for _, name := range failpoint.Steps[s[1]] {
			used[name] = true
		}
	}
	for _, name := range failpoint.All {
		if !used[name] {
			t.Errorf("%s lies at no step", name)
		}
	}
}
