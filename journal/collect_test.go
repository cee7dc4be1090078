package journal

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
)

// later is the clock of a process in which the grace of all garbage is over.
func later() time.Time { return time.Now().Add(grace + time.Minute) }

func names(t *testing.T, j *Journal) sets.Set[string] {
	t.Helper()
	list, err := j.Secrets.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := sets.New[string]()
	for _, s := range list.Items {
		out.Insert(s.Name)
	}
	return out
}

func manyServices(revision, changed int) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for i := range 400 {
		r := 0
		if i == changed {
			r = revision
		}
		out = append(out, deployment(i, r))
	}
	return out
}

func TestCollectRemovesOnlyWhatNothingNames(t *testing.T) {
	namespace := clustertest.Namespace(t)
	j, h := begun(t, namespace)
	foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "nexus-bundle-foreign"}}
	if _, err := j.Secrets.Create(t.Context(), foreign, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	other, _ := open(t, namespace)
	other.Environment = "another"
	store(t, other, BlobBundle("plan", []byte("{}")))
	before := names(t, j)
	good := store(t, j, setBundle(t, makeSet(t, manyServices(0, 0)...)))
	policy := store(t, j, BlobBundle("policy", []byte("{}")))
	wanted := names(t, j)
	// Shares all its chunks but one with the good set.
	store(t, j, setBundle(t, makeSet(t, manyServices(1, 200)...)))
	store(t, j, BlobBundle("plan", []byte("{}")))
	garbage := names(t, j).Difference(wanted)
	if wanted.Difference(before).Len() < 4 || garbage.Len() < 3 {
		t.Fatalf("%d Secrets are wanted, %d are garbage", wanted.Len(), garbage.Len())
	}

	// In the eyes of this process nothing is old enough.
	if n, err := j.Collect(t.Context(), good, policy); err != nil || n != 0 {
		t.Fatalf("%d young Secrets were deleted, %v", n, err)
	}
	fresh, wire := open(t, namespace)
	fresh.Now = later
	n, err := fresh.Collect(t.Context(), good, "", policy)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sets.List(wanted), sets.List(names(t, j))); diff != "" || n != garbage.Len() {
		t.Errorf("%d of %d were deleted: %s", n, garbage.Len(), diff)
	}
	for _, digest := range []string{good, policy} {
		if _, err := fresh.Load(t.Context(), digest); err != nil {
			t.Error(err)
		}
	}
	if now, err := j.Head(t.Context()); err != nil || now.revision != h.revision {
		t.Errorf("the head: %v", err)
	}
	// Once is enough, until much was written.
	wire.take()
	if n, err := fresh.Collect(t.Context(), good, policy); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if reads, writes, _ := wire.take(); reads+writes != 0 {
		t.Errorf("%d requests for nothing", reads+writes)
	}
}

func TestCollectForgetsWhatItDeleted(t *testing.T) {
	namespace := clustertest.Namespace(t)
	j, wire := open(t, namespace)
	j.Now = later
	b := setBundle(t, makeSet(t, manyServices(0, 0)...))
	digest := store(t, j, b)
	_, first, _ := wire.take()
	if n, err := j.Collect(t.Context()); err != nil || n != first {
		t.Fatalf("%d of %d were deleted, %v", n, first, err)
	}
	if len(j.known) != 0 || len(j.chunks) != 0 {
		t.Errorf("%d Secrets and %d bundles are remembered", len(j.known), len(j.chunks))
	}
	wire.take()
	if again := store(t, j, b); again != digest {
		t.Errorf("%s is %s now", digest, again)
	}
	if _, writes, _ := wire.take(); writes != first {
		t.Errorf("%d of %d Secrets were written again", writes, first)
	}
	if _, err := j.Load(t.Context(), digest); err != nil {
		t.Error(err)
	}
}

func TestCollectRunsAgainAfterManyWrites(t *testing.T) {
	j, wire := open(t, clustertest.Namespace(t))
	j.Now = later
	if _, err := j.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range collectAfter {
		if n, err := j.Collect(t.Context()); err != nil || n != 0 {
			t.Fatalf("after %d writes: %d, %v", i, n, err)
		}
		store(t, j, BlobBundle("plan", fmt.Append(nil, i)))
	}
	wire.take()
	if n, err := j.Collect(t.Context()); err != nil || n != collectAfter {
		t.Errorf("%d, %v", n, err)
	}
}

// A kept bundle that is damaged stops everything: what it is made of is not known.
func TestCollectDeletesNothingWhereAKeptBundleIsMissing(t *testing.T) {
	namespace := clustertest.Namespace(t)
	j, _ := open(t, namespace)
	good := store(t, j, setBundle(t, makeSet(t, manyServices(0, 0)...)))
	if err := j.Secrets.Delete(t.Context(), j.secretName(good), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	before := names(t, j)
	fresh, _ := open(t, namespace)
	fresh.Now = later
	n, err := fresh.Collect(t.Context(), good)
	var missing *MissingChunkError
	if !errors.As(err, &missing) || n != 0 || !before.Equal(names(t, j)) {
		t.Errorf("%d were deleted, %v", n, err)
	}
}

// The chunk of a small bundle may lie in a Secret of its own, because a larger one shared it when
// it was stored. A later process that stores the same bundle must not believe otherwise.
func TestCollectKeepsASharedChunkOfABundleThatWasStoredTwice(t *testing.T) {
	namespace := clustertest.Namespace(t)
	first, _ := open(t, namespace)
	all := manyServices(0, 0)
	big := setBundle(t, makeSet(t, all...))
	n := len(itemsOf(t, big.cut()[0]))
	if len(big.cut()) < 2 {
		t.Fatal("one chunk is not enough for this test")
	}
	small := setBundle(t, makeSet(t, all[:n]...))
	if chunks := small.cut(); len(chunks) != 1 || chunks[0].digest != big.cut()[0].digest {
		t.Fatalf("%d chunks", len(chunks))
	}
	store(t, first, big)
	digest := store(t, first, small)

	second, _ := open(t, namespace)
	second.Now = later
	store(t, second, small)
	if _, err := second.Collect(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	third, _ := open(t, namespace)
	if _, err := third.Load(t.Context(), digest); err != nil {
		t.Errorf("a kept bundle was torn apart: %v", err)
	}
}

func itemsOf(t *testing.T, c chunk) [][]byte {
	t.Helper()
	items, err := readItems(c.content)
	if err != nil {
		t.Fatal(err)
	}
	return items
}
