package health

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write testdata/verdicts.txt anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newJudge(t testing.TB, rules ...Rule) *Judge {
	t.Helper()
	j, err := NewJudge(Rules{CrashTolerance: 2, FirstCrashTolerance: 5, PendingGrace: 30 * time.Second, CEL: rules}, func() time.Time { return noon })
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// around is a world made of decoded objects.
type around struct {
	pods []*corev1.Pod
	sets []*appsv1.ReplicaSet
}

func (a *around) Pods(namespace string) (in []*corev1.Pod) {
	for _, p := range a.pods {
		if p.Namespace == namespace {
			in = append(in, p)
		}
	}
	return in
}

func (a *around) ReplicaSets(namespace string) (in []*appsv1.ReplicaSet) {
	for _, s := range a.sets {
		if s.Namespace == namespace {
			in = append(in, s)
		}
	}
	return in
}

// scene is a file of testdata: the object that is judged, then the pods and replica sets around it. Comments before them
// say what is expected: "generation: N", "first".
type scene struct {
	live  *unstructured.Unstructured
	want  Expectation
	world *around
}

func readScene(t testing.TB, path string) scene {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := scene{world: &around{}}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "# generation: "); ok {
			if s.want.Generation, err = strconv.ParseInt(strings.TrimSpace(n), 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		s.want.First = s.want.First || strings.HasPrefix(line, "# first")
	}
	for i, doc := range bytes.Split(text, []byte("---\n")) {
		body, err := yaml.YAMLToJSONStrict(doc)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(body); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if i == 0 {
			s.live = u
			continue
		}
		s.world.add(t, u)
	}
	return s
}

func (a *around) add(t testing.TB, u *unstructured.Unstructured) {
	t.Helper()
	var into any
	switch u.GetKind() {
	case "Pod":
		p := &corev1.Pod{}
		a.pods, into = append(a.pods, p), p
	case "ReplicaSet":
		s := &appsv1.ReplicaSet{}
		a.sets, into = append(a.sets, s), s
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, into); err != nil {
		t.Fatal(err)
	}
}

func scenes(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no testdata", err)
	}
	return paths
}

func TestLiveObjectsHaveTheirVerdicts(t *testing.T) {
	j := newJudge(t)
	var got strings.Builder
	for _, path := range scenes(t) {
		s := readScene(t, path)
		before := s.live.DeepCopy()
		v := j.Judge(s.live, s.want, s.world)
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(path), "testdata/"), ".yaml")
		fmt.Fprintf(&got, "%s\n\t%s %s", name, v.State, v.Reason)
		if v.Again > 0 {
			fmt.Fprintf(&got, " (again in %s)", v.Again)
		}
		fmt.Fprintf(&got, "\n\t%s\n", v.Message)
		if v.Pod != nil {
			fmt.Fprintf(&got, "\t%+v\n", *v.Pod)
		}
		if v.Fatal != (v.State == Failed) {
			t.Errorf("%s: state %s, fatal %t", name, v.State, v.Fatal)
		}
		if diff := cmp.Diff(before.Object, s.live.Object); diff != "" {
			t.Errorf("%s: the object was changed:\n%s", name, diff)
		}
		if again := j.Judge(s.live, s.want, s.world); !cmp.Equal(v, again) {
			t.Errorf("%s: judged twice:\n%s", name, cmp.Diff(v, again))
		}
	}
	const golden = "testdata/verdicts.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("verdicts (-want +got); if they are right, run with -update:\n%s", diff)
	}
}
