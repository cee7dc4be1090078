package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
)

func TestOfManyWritersOfOneHeadExactlyOneWins(t *testing.T) {
	const writers = 16
	namespace := clustertest.Namespace(t)
	journals := make([]*Journal, writers)
	for i := range journals {
		journals[i], _ = open(t, namespace)
	}
	// race lets every process write what it makes of the same head, and returns what the winner wrote.
	race := func(t *testing.T, from Head, to func(int) Head) Head {
		t.Helper()
		var (
			wg    sync.WaitGroup
			mu    sync.Mutex
			won   []Head
			start = make(chan struct{})
		)
		for i, j := range journals {
			wg.Go(func() {
				<-start
				written, err := j.Swap(t.Context(), from, to(i))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won = append(won, written)
				case !errors.Is(err, ErrConflict):
					t.Errorf("writer %d: %v", i, err)
				}
			})
		}
		close(start)
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d of %d writers won", len(won), writers)
		}
		for i, j := range journals {
			h, err := j.Head(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(won[0], h, unexported); diff != "" {
				t.Errorf("process %d reads another head than was written: %s", i, diff)
			}
		}
		return won[0]
	}
	unborn, err := journals[0].Head(t.Context())
	if err != nil || unborn.Exists() || unborn.State != Idle || unborn.Environment != journals[0].Environment {
		t.Fatalf("before the first write: %+v, %v", unborn, err)
	}
	first := race(t, unborn, func(int) Head { return unborn.First(0, time.Time{}) })
	if !first.Exists() {
		t.Error("a head that was written exists")
	}
	opened := race(t, first, func(i int) Head {
		return first.Prepare(Release{Number: 1, Commit: fmt.Sprintf("commit-%d", i)}, "", nil)
	})
	race(t, opened, func(i int) Head { // the decision, against an undo
		if i%2 == 0 {
			return opened.Commit()
		}
		return opened.Abort(Failure{Reason: "Timeout", Message: fmt.Sprint(i)})
	})
}

func TestAHeadWithEveryFieldIsReadAsItWasWritten(t *testing.T) {
	j, first := begun(t, clustertest.Namespace(t))
	want := complete()
	want.Environment = j.Environment
	// Through the states that lead there, with all that a head can say.
	good := *want.Good
	idle := want
	idle.State, idle.Release, idle.Number, idle.Epoch, idle.Good, idle.Previous, idle.Last = Idle, nil, 0, first.Epoch+1, nil, nil, nil
	h, err := j.Swap(t.Context(), first, idle)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []func(Head) Head{
		func(h Head) Head { return h.Prepare(Release{Number: good.Release, Commit: good.Commit}, "union", nil) },
		func(h Head) Head { return h.Commit() },
		func(h Head) Head {
			h = h.Done(good, "", "after", want.BakeUntil, noon)
			h.Previous, h.Last, h.Inventory = want.Previous, want.Last, want.Inventory
			return h
		},
		func(h Head) Head {
			h = h.Prepare(*want.Release, want.Inventory, nil)
			h.Release.Failure = nil
			return h
		},
		func(Head) Head { return want },
	} {
		if h, err = j.Swap(t.Context(), h, to(h)); err != nil {
			t.Fatal(err)
		}
	}
	other, _ := open(t, strings.TrimPrefix(string(j.Environment), "env-"))
	read, err := other.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want.revision = read.revision
	if diff := cmp.Diff(want, read, unexported); diff != "" {
		t.Error(diff)
	}
	if read.revision != h.revision || read.revision == "" {
		t.Errorf("read revision %q, wrote %q", read.revision, h.revision)
	}
}

// plant writes the head's Secret as no program of ours would.
func plant(t *testing.T, j *Journal, content string) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: j.headName(), Labels: j.labels("head")}, Data: map[string][]byte{headKey: []byte(content)}}
	if _, err := j.Secrets.Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestAHeadThatCannotBeUnderstoodIsRefusedByName(t *testing.T) {
	j, _ := open(t, clustertest.Namespace(t))
	edit := func(f func(*Head)) string {
		h := complete()
		h.Environment = j.Environment
		f(&h)
		b, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	tests := []struct{ name, content, says string }{
		{"it is not JSON", "canary{", "it is not JSON"},
		{"it is empty", "", "it is not JSON"},
		{"it is another document", `{"version":1,"environment":["canary"]}`, "it is no head"},
		{"a phase that nobody knows", strings.Replace(edit(func(*Head) {}), `"application"`, `"canary"`, 1), "it is no head"},
		{"it is of another environment", edit(func(h *Head) { h.Environment = "other" }), `it is of the environment "other"`},
		{"a state that nobody knows", edit(func(h *Head) { h.State = "resting" }), `its state "resting" is none`},
		{"no state", edit(func(h *Head) { h.State = "" }), `its state "" is none`},
		{"idle with an open release", edit(func(h *Head) { h.State = Idle }), "open release"},
		{"open without a release", edit(func(h *Head) { h.Release = nil }), "open release"},
		{"undone for no reason", edit(func(h *Head) { h.Release.Failure = nil }), "must have a failure"},
		{"decided, and failed", edit(func(h *Head) { h.State = Committed }), "must have a failure"},
		{"another number than its release", edit(func(h *Head) { h.Number = 12 }), "has number 9, the newest has 12"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			plant(t, j, tt.content)
			defer func() { _ = j.Secrets.Delete(t.Context(), j.headName(), metav1.DeleteOptions{}) }()
			_, err := j.Head(t.Context())
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) || corrupt.Secret != j.headName() || !strings.Contains(err.Error(), j.headName()) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v", err)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("the content is quoted: %v", err)
			}
		})
	}
	t.Run("a newer version", func(t *testing.T) {
		// The rest of it may be anything: it is not looked at.
		plant(t, j, `{"version":2,"environment":["a list of them"],"state":"resting"}`)
		_, err := j.Head(t.Context())
		var newer *NewerError
		if !errors.As(err, &newer) || newer.Version != 2 || newer.Secret != j.headName() {
			t.Fatalf("%v", err)
		}
		for _, part := range []string{j.headName(), "version 2", "up to 1", "newer program"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v does not say %q", err, part)
			}
		}
	})
}

func TestWhatMayNotBeWrittenIsNotSent(t *testing.T) {
	namespace := clustertest.Namespace(t)
	_, h := begun(t, namespace)
	j, wire := open(t, namespace)
	large := h.Lift("", "")
	for i := range 1000 {
		large.Bad = append(large.Bad, Bad{Commit: fmt.Sprintf("%040d", i), At: noon})
	}
	_, err := j.Swap(t.Context(), h, large)
	var over *TooLargeError
	if !errors.As(err, &over) || over.Bytes <= maxHead || !strings.Contains(err.Error(), fmt.Sprint(over.Bytes)) {
		t.Errorf("a head over its bound: %v", err)
	}
	if _, err := j.Swap(t.Context(), h, h.next(Committed)); err == nil {
		t.Error("a step that the protocol has not was taken")
	}
	if reads, writes, _ := wire.take(); reads+writes != 0 {
		t.Errorf("%d requests were sent", reads+writes)
	}
	if now, err := j.Head(t.Context()); err != nil || now.revision != h.revision {
		t.Errorf("the head was written: %v", err)
	}
}

// Neither side knows whether a write whose answer is lost was carried out. The head tells.
func TestAWriteWithoutAnAnswerIsNoFailure(t *testing.T) {
	namespace := clustertest.Namespace(t)
	j, wire := open(t, namespace)
	unborn, err := j.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	writes := func(r *http.Request) bool { return r.Method != http.MethodGet }
	var unknown *UnknownOutcomeError
	wire.losing(writes)
	if _, err := j.Swap(t.Context(), unborn, unborn.First(0, time.Time{})); !errors.As(err, &unknown) {
		t.Fatalf("the first write: %v", err)
	}
	h, err := j.Head(t.Context())
	if err != nil || h.Epoch != 1 {
		t.Fatalf("the first write was carried out: %+v, %v", h, err)
	}
	if _, err := j.Swap(t.Context(), h, h.Lift("", "r")); !errors.As(err, &unknown) {
		t.Fatalf("a later write: %v", err)
	}
	wire.losing(nil)
	if _, err := j.Swap(t.Context(), h, h.Lift("", "r")); !errors.Is(err, ErrConflict) {
		t.Errorf("the same write again is one too many: %v", err)
	}
	if h, err = j.Head(t.Context()); err != nil || h.Request != "r" {
		t.Errorf("the later write was carried out: %+v, %v", h, err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.Swap(canceled, h, h.Lift("", "s")); !errors.As(err, &unknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("a process that stops: %v", err)
	}
}

func TestAnAPIServerThatIsAwayIsNobodysFault(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	j := elsewhere(t, &rest.Config{Host: "http://" + listener.Addr().String(), QPS: -1})
	blob := BlobBundle("plan", []byte("{}"))
	for name, call := range calls(j, blob) {
		var away *UnavailableError
		if err := call(t.Context()); !errors.As(err, &away) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	for name, call := range calls(j, blob) {
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s after its time: %v", name, err)
		}
	}
}

func TestWhatTheAPIServerRefusesStaysRefused(t *testing.T) {
	config := rest.CopyConfig(clustertest.Config(t))
	config.Impersonate = rest.ImpersonationConfig{UserName: "nobody"}
	j := elsewhere(t, config)
	for name, call := range calls(j, BlobBundle("plan", []byte("{}"))) {
		err := call(t.Context())
		var away *UnavailableError
		var unknown *UnknownOutcomeError
		var status apierrors.APIStatus
		if !errors.As(err, &status) || status.Status().Reason != metav1.StatusReasonForbidden || errors.As(err, &away) || errors.As(err, &unknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// elsewhere is a journal in the namespace default, by another way than open.
func elsewhere(t *testing.T, config *rest.Config) *Journal {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return &Journal{
		Secrets: client.CoreV1().Secrets("default"), Metadata: meta.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace("default"),
		Environment: "elsewhere", Now: time.Now,
	}
}

// calls is everything that a journal asks of the API server.
func calls(j *Journal, b Bundle) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"head":   func(ctx context.Context) error { _, err := j.Head(ctx); return err },
		"unborn": func(ctx context.Context) error { _, err := j.unborn(ctx); return err },
		"swap": func(ctx context.Context) error {
			_, err := j.Swap(ctx, Head{State: Idle}, Head{State: Idle}.First(0, time.Time{}))
			return err
		},
		"store":   func(ctx context.Context) error { _, err := j.Store(ctx, b); return err },
		"load":    func(ctx context.Context) error { _, err := j.Load(ctx, strings.Repeat("a", 64)); return err },
		"collect": func(ctx context.Context) error { _, err := j.Collect(ctx); return err },
		"delete":  j.Delete,
	}
}

func TestDeleteForgetsOneEnvironmentAndNoOther(t *testing.T) {
	namespace := clustertest.Namespace(t)
	j, _ := begun(t, namespace)
	for i := range 20 {
		store(t, j, BlobBundle("plan", fmt.Append(nil, i)))
	}
	other, _ := open(t, namespace)
	other.Environment = "another"
	kept := store(t, other, BlobBundle("plan", []byte("{}")))
	if _, err := other.Swap(t.Context(), Head{Environment: "another", State: Idle}, Head{Environment: "another", State: Idle}.First(0, time.Time{})); err != nil {
		t.Fatal(err)
	}
	if err := j.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := j.Secrets.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list.Items {
		if s.Labels[journalLabel] != "another" {
			t.Errorf("Secret %s is left", s.Name)
		}
	}
	if _, err := other.Load(t.Context(), kept); err != nil {
		t.Error(err)
	}
	if h, err := other.Head(t.Context()); err != nil || !h.Exists() {
		t.Errorf("%+v, %v", h, err)
	}
	// What was stored before is not believed to be there.
	again := store(t, j, BlobBundle("plan", fmt.Append(nil, 3)))
	if _, err := j.Load(t.Context(), again); err != nil {
		t.Error(err)
	}
}
