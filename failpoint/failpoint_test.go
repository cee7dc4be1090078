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
	var sources strings.Builder
	err = filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
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
	for _, c := range constants {
		if !strings.Contains(sources.String(), "failpoint.Here(failpoint."+c[1]+")") {
			t.Errorf("no code passes %s", c[1])
		}
	}
}
