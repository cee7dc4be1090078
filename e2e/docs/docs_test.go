// Package docs runs what the documentation says: its commands, its YAML, its tables and its links.
package docs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/e2e/cluster"
)

// reader is somebody with a checkout and an empty cluster who does what the pages say, one after the other.
type reader struct {
	checkout string
	env      []string
}

// newReader gives a reader a checkout of their own, an empty cluster, and the tools that the pages use.
func newReader(t *testing.T) reader {
	t.Helper()
	dir := t.TempDir()
	r := reader{checkout: filepath.Join(dir, "checkout")}
	for _, name := range files(t) {
		copyFile(t, filepath.Join(root, name), filepath.Join(r.checkout, name))
	}
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: filepath.Join(dir, "cluster"), Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	tools := filepath.Join(dir, "tools")
	for tool, path := range map[string]string{"reconciler": "./cmd/reconciler", "age-keygen": "filippo.io/age/cmd/age-keygen"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(tools, tool), path)
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", tool, err, out)
		}
	}
	if err := cluster.Kubectl(t.Context(), tools); err != nil {
		t.Fatal(err)
	}
	r.env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"), "KUBECONFIG="+c.Kubeconfig, "KUBECACHEDIR="+dir)
	return r
}

// files is what a clone would hold, with what is not committed yet.
func files(t *testing.T) []string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "git", "ls-files", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, name := range strings.Fields(string(out)) {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil { // else it is deleted, but not committed
			names = append(names, name)
		}
	}
	return names
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, info.Mode()); err != nil {
		t.Fatal(err)
	}
}

// do runs a command of bash and returns what it says.
func (r reader) do(t *testing.T, command, stdin string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", command)
	cmd.Dir, cmd.Env, cmd.Stdin = r.checkout, r.env, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// long is what `make test` runs beside this test, or what takes too long; that the targets exist must do here.
var long = regexp.MustCompile(`(?m)^make (demo|test|bench|sweep)\b`)

// follow does what every block of a page says.
func (r reader) follow(t *testing.T, p page) {
	t.Helper()
	for _, b := range p.blocks {
		var err error
		switch b.language {
		case "sh":
			err = r.do(t, long.ReplaceAllString(b.text, "make -n $1 >/dev/null"), "")
		case "yaml":
			err = r.manifest(t, b.text)
		default:
			err = fmt.Errorf("nobody knows how to try %q: use sh or yaml", b.language)
		}
		if err != nil {
			t.Fatalf("%s:%d: %v\n%s", p.name, b.line, err, b.text)
		}
	}
}

// manifest gives YAML to who would read it: a policy to our parser, all else to the API server.
func (r reader) manifest(t *testing.T, text string) error {
	t.Helper()
	var head struct {
		Kind     string
		Metadata struct{ Namespace string }
	}
	if err := yaml.Unmarshal([]byte(text), &head); err != nil {
		return err
	}
	if head.Kind == "ReleasePolicy" {
		policy, err := v1alpha1.ParsePolicy([]byte(text))
		if err != nil {
			return err
		}
		return policy.Validate()
	}
	namespace := "kubectl create namespace " + head.Metadata.Namespace + " --dry-run=client -o yaml | kubectl apply -f -"
	if err := r.do(t, namespace, ""); err != nil {
		return err
	}
	return r.do(t, "kubectl apply --server-side --force-conflicts --validate=strict -f -", text)
}

func TestTheReadmeWorksAsWritten(t *testing.T) {
	t.Parallel()
	newReader(t).follow(t, read(t, "README.md"))
}

func TestThePagesWorkAsWrittenInTheOrderOfTheReadme(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	for _, p := range linked(t) {
		t.Run(filepath.Base(p.name), func(t *testing.T) { r.follow(t, p) })
	}
}

// verb is a command between backquotes. What stands for something to fill in is left out.
var verb = regexp.MustCompile("`(reconciler [^`]+)`")

func TestEveryCommandInTheProseHasTheVerbsAndFlagsThatItNames(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "reconciler")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/reconciler")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	known := map[string]bool{}
	help, err := exec.CommandContext(t.Context(), binary, "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range bytes.Split(help, []byte("\n")) {
		if words := bytes.Fields(line); bytes.HasPrefix(line, []byte("  ")) && len(words) > 1 {
			known[string(words[0])] = true
		}
	}
	tried := 0
	for _, name := range markdown(t) {
		for _, m := range verb.FindAllStringSubmatch(read(t, name).prose(), -1) {
			args := strings.Fields(strings.ReplaceAll(m[1], "…", ""))[1:]
			if !known[args[0]] {
				t.Errorf("%s: `%s`: there is no such verb", name, m[1])
			}
			if out, err := exec.CommandContext(t.Context(), binary, append(args, "--help")...).CombinedOutput(); err != nil {
				t.Errorf("%s: `%s`: %v\n%s", name, m[1], err, out)
			}
			tried++
		}
	}
	if tried < 10 {
		t.Errorf("only %d commands were found", tried)
	}
}
