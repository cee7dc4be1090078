package journal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"

	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
	"github.com/nexus-platform/reconciler/object"
)

func TestASetComesBackAsItWas(t *testing.T) {
	random := seed(t)
	var services, secrets []*unstructured.Unstructured
	for i := range 2000 {
		services = append(services, deployment(i, 0))
	}
	for i := range 30 {
		secrets = append(secrets, secret(fmt.Sprintf("key-%d", i), 100<<10, random))
	}
	awkward := deployment(1, 0)
	awkward.Object["spec"] = map[string]any{
		"int": int64(1<<62 + 1), "float": 1.5, "whole": float64(3), "large": 1e21, "none": nil, "yes": true,
		"empty": "", "map": map[string]any{}, "list": []any{}, "text": "<&>\u2028é💥\x00",
	}
	tests := []struct {
		name      string
		bodies    []*unstructured.Unstructured
		secrets   int  // of the journal, at least
		onlyIndex bool // one Secret is enough
	}{
		{"no object", nil, 1, true},
		{"one object", services[:1], 1, true},
		{"every form of a value", []*unstructured.Unstructured{awkward}, 1, true},
		{"many objects", services, 20, false},
		{"three megabytes of Secrets", secrets, 12, false},
		{"an object that is larger than a Secret may be", []*unstructured.Unstructured{secret("large", 1<<20, random)}, 5, false},
		{"large and small ones together", append([]*unstructured.Unstructured{secret("large", 700<<10, random)}, services[:100]...), 4, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			namespace := clustertest.Namespace(t)
			j, wire := open(t, namespace)
			set := makeSet(t, tt.bodies...)
			digest := store(t, j, setBundle(t, set))
			_, writes, _ := wire.take()
			if writes < tt.secrets || tt.onlyIndex && writes != 1 {
				t.Errorf("%d Secrets were written", writes)
			}
			if again := store(t, j, setBundle(t, set)); again != digest {
				t.Errorf("the same set is %s and %s", digest, again)
			}
			if reads, writes, _ := wire.take(); reads+writes != 0 {
				t.Errorf("what is there already cost %d reads and %d writes", reads, writes)
			}
			fresh, _ := open(t, namespace)
			b, err := fresh.Load(t.Context(), digest)
			if err != nil {
				t.Fatal(err)
			}
			back, err := b.Set()
			if err != nil {
				t.Fatal(err)
			}
			if back.Digest != set.Digest || back.Len() != set.Len() {
				t.Fatalf("%d objects with digest %s came back as %d with %s", set.Len(), set.Digest, back.Len(), back.Digest)
			}
			for i, o := range set.Objects {
				if got := back.Objects[i]; got.Ref != o.Ref || got.Digest != o.Digest || got.Origin.Path != o.Origin.Path {
					t.Fatalf("%s from %s came back as %s from %s", o.Ref, o.Origin, got.Ref, got.Origin)
				}
			}
			if again := store(t, fresh, setBundle(t, back)); again != digest {
				t.Errorf("stored again by another process it is %s", again)
			}
		})
	}
}

func TestInventoriesPreImagesAndDocumentsComeBack(t *testing.T) {
	j, _ := open(t, clustertest.Namespace(t))
	load := func(t *testing.T, digest string) Bundle {
		t.Helper()
		b, err := j.Load(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	t.Run("an inventory, in order", func(t *testing.T) {
		inv := object.Inventory{
			{Ref: object.Ref{Group: "apps", Kind: "Deployment", Namespace: "shop", Name: "web"}, Version: "v1", UID: "u2", Rendered: "r", Live: "l", Fields: []byte(`{"f:spec":{}}`), Phase: object.Application},
			{Ref: object.Ref{Kind: "Namespace", Name: "shop"}, Version: "v1", UID: "u1"},
		}
		b, err := InventoryBundle(inv)
		if err != nil {
			t.Fatal(err)
		}
		back, err := load(t, store(t, j, b)).Inventory()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(inv.Sorted(), back); diff != "" {
			t.Error(diff)
		}
		reversed, err := InventoryBundle(object.Inventory{inv[1], inv[0]})
		if err != nil {
			t.Fatal(err)
		}
		if store(t, j, b) != store(t, j, reversed) {
			t.Error("the same inventory in another order is another bundle")
		}
	})
	t.Run("an empty inventory", func(t *testing.T) {
		b, err := InventoryBundle(nil)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := load(t, store(t, j, b)).Inventory(); err != nil || len(back) != 0 {
			t.Errorf("%v, %v", back, err)
		}
	})
	t.Run("pre-images, with status and managed fields", func(t *testing.T) {
		live := deployment(1, 0)
		live.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "helm", Operation: metav1.ManagedFieldsOperationUpdate}})
		live.Object["status"] = map[string]any{"replicas": int64(3)}
		b, err := ImagesBundle([]*unstructured.Unstructured{live, deployment(2, 0)})
		if err != nil {
			t.Fatal(err)
		}
		back, err := load(t, store(t, j, b)).Images()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]*unstructured.Unstructured{live, deployment(2, 0)}, back); diff != "" {
			t.Error(diff)
		}
	})
	for name, content := range map[string][]byte{"nothing": nil, "a plan": []byte(`{"actions":[]}`), "zeros": make([]byte, 3<<20)} {
		t.Run("a document of "+name, func(t *testing.T) {
			back, err := load(t, store(t, j, BlobBundle("plan", content))).Blob()
			if err != nil || !bytes.Equal(back, content) {
				t.Errorf("%d bytes came back as %d: %v", len(content), len(back), err)
			}
		})
	}
	t.Run("the kind is part of the name", func(t *testing.T) {
		if store(t, j, BlobBundle("plan", []byte("{}"))) == store(t, j, BlobBundle("policy", []byte("{}"))) {
			t.Error("a plan is a policy")
		}
	})
}

func TestABundleOfAnotherKindIsRefused(t *testing.T) {
	set, images := setBundle(t, makeSet(t, deployment(1, 0), deployment(2, 0))), Bundle{kind: kindImages}
	for name, call := range map[string]func() error{
		"a set as an inventory": func() error { _, err := set.Inventory(); return err },
		"a set as pre-images":   func() error { _, err := set.Images(); return err },
		"a set as a document":   func() error { _, err := set.Blob(); return err },
		"pre-images as a set":   func() error { _, err := images.Set(); return err },
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), "the bundle holds") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string]Bundle{
		"an object without a kind": {kind: kindSet, items: [][]byte{[]byte(`{"body":{"apiVersion":"v1","metadata":{"name":"canary"},"data":{"canary":"canary"}}}`)}},
		"an object without a name": {kind: kindSet, items: [][]byte{[]byte(`{"body":{"apiVersion":"v1","kind":"Secret","data":{"canary":"canary"}}}`)}},
		"a list":                   {kind: kindSet, items: [][]byte{[]byte(`{"body":["canary"]}`)}},
		"no JSON":                  {kind: kindSet, items: [][]byte{[]byte(`canary`)}},
		"no pre-image":             {kind: kindImages, items: [][]byte{[]byte(`{"data":{"canary":"canary"}}`)}},
	} {
		_, err := b.Set()
		if b.kind == kindImages {
			_, err = b.Images()
		}
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A release of one object in a large environment must stay cheap for etcd, whichever object it is.
func TestOneChangedObjectOfFiveThousandCostsLittle(t *testing.T) {
	const count = 5000
	j, wire := open(t, clustertest.Namespace(t))
	bodies := make([]*unstructured.Unstructured, count)
	inventory := make(object.Inventory, count)
	for i := range bodies {
		bodies[i] = deployment(i, 0)
		inventory[i] = record(t, bodies[i])
	}
	inventoryBundle := func() Bundle {
		b, err := InventoryBundle(inventory)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	store(t, j, setBundle(t, makeSet(t, bodies...)))
	store(t, j, inventoryBundle())
	_, all, allBytes := wire.take()
	t.Logf("%d objects: %d Secrets, %d KiB", count, all, allBytes>>10)
	for _, i := range []int{0, 1, 2499, 2500, 3333, 4998, 4999} {
		bodies[i] = deployment(i, 1)
		inventory[i] = record(t, bodies[i])
		store(t, j, setBundle(t, makeSet(t, bodies...)))
		_, writes, bytes := wire.take()
		store(t, j, inventoryBundle())
		_, more, moreBytes := wire.take()
		t.Logf("object %d: set %d Secrets, %d KiB; inventory %d Secrets, %d KiB", i, writes, bytes>>10, more, moreBytes>>10)
		if writes > 3 || more > 3 || bytes+moreBytes >= 64<<10 {
			t.Errorf("object %d costs %d and %d Secrets of %d bytes", i, writes, more, bytes+moreBytes)
		}
	}
	// Taking one out or putting one in moves all that follow, but not the chunks that they lie in.
	bodies = slices.Delete(bodies, 100, 101)
	store(t, j, setBundle(t, makeSet(t, bodies...)))
	if _, writes, bytes := wire.take(); writes > 4 || bytes >= 64<<10 {
		t.Errorf("one object fewer costs %d Secrets of %d bytes", writes, bytes)
	}
}

func record(t *testing.T, u *unstructured.Unstructured) object.Record {
	t.Helper()
	digest, err := object.Digest(u.Object)
	if err != nil {
		t.Fatal(err)
	}
	return object.Record{Ref: object.RefOf(u), Version: "v1", UID: "0f3c2f5e-9d0b-4c3a-8f67-0d8f2a1b3c4d", Rendered: digest, Live: sum([]byte(digest)), Fields: fieldsOf(u.Object), Phase: object.Application}
}

// fieldsOf is a field set like the one that the API server keeps of an apply.
func fieldsOf(m map[string]any) []byte {
	var walk func(any) any
	walk = func(v any) any {
		fields := map[string]any{}
		if m, ok := v.(map[string]any); ok {
			for k, v := range m {
				fields["f:"+k] = walk(v)
			}
		}
		return fields
	}
	b, _ := json.Marshal(walk(m))
	return b
}

// damage replaces the content of an immutable Secret, as only somebody with too many rights can.
func damage(t *testing.T, j *Journal, name string, data []byte) {
	t.Helper()
	s, err := j.Secrets.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Secrets.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	fresh := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: s.Labels}, Type: s.Type, Data: map[string][]byte{dataKey: data}}
	if _, err := j.Secrets.Create(t.Context(), fresh, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestADamagedOrMissingPartIsNamed(t *testing.T) {
	random := seed(t)
	packed := func(b []byte) []byte {
		out, err := compress(b)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	indexed := func(idx index) []byte {
		b, err := json.Marshal(idx)
		if err != nil {
			t.Fatal(err)
		}
		return packed(b)
	}
	small := setBundle(t, makeSet(t, deployment(1, 0)))
	large := setBundle(t, makeSet(t, secret("canary", 600<<10, random), deployment(1, 0)))
	tests := []struct {
		name string
		b    Bundle
		part int    // 0: the index, 1: the first chunk
		data []byte // nil: it is missing
	}{
		{"a missing index", large, 0, nil},
		{"a missing chunk", large, 1, nil},
		{"a missing last chunk", large, 3, nil},
		{"an index that cannot be unpacked", large, 0, []byte("no zstd")},
		{"a chunk that cannot be unpacked", large, 1, []byte("no zstd")},
		{"a chunk that is empty", large, 1, []byte{}},
		{"a chunk of something else", large, 2, packed([]byte("something else"))},
		{"an index that is no JSON", large, 0, packed([]byte("{"))},
		{"an index of something else", large, 0, indexed(index{Kind: kindSet, Items: 2, Chunks: []string{sum(nil)}})},
		{"an index with another number of items", small, 0, indexed(index{Kind: kindSet, Items: 2, Chunks: []string{small.cut()[0].digest}, Inline: packed(small.cut()[0].content)})},
		{"an index with another kind", small, 0, indexed(index{Kind: kindImages, Items: 1, Chunks: []string{small.cut()[0].digest}, Inline: packed(small.cut()[0].content)})},
		{"an index that holds another chunk", small, 0, indexed(index{Kind: kindSet, Items: 1, Chunks: []string{small.cut()[0].digest}, Inline: packed([]byte("something else"))})},
		{"an index whose chunk cannot be unpacked", small, 0, indexed(index{Kind: kindSet, Items: 1, Chunks: []string{small.cut()[0].digest}, Inline: []byte("no zstd")})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			namespace := clustertest.Namespace(t)
			j, _ := open(t, namespace)
			digest := store(t, j, tt.b)
			name := j.secretName(digest)
			if tt.part > 0 {
				name = j.secretName(tt.b.cut()[tt.part-1].digest)
			}
			if tt.data == nil {
				if err := j.Secrets.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			} else {
				damage(t, j, name, tt.data)
			}
			fresh, _ := open(t, namespace)
			_, err := fresh.Load(t.Context(), digest)
			var missing *MissingChunkError
			var corrupt *CorruptError
			switch {
			case err == nil || !strings.Contains(err.Error(), name):
				t.Errorf("%v does not name %s", err, name)
			case tt.data == nil && (!errors.As(err, &missing) || missing.Secret != name):
				t.Errorf("it is not missing: %v", err)
			case tt.data != nil && (!errors.As(err, &corrupt) || corrupt.Secret != name):
				t.Errorf("it is not damaged: %v", err)
			}
		})
	}
	t.Run("no digest at all", func(t *testing.T) {
		j, wire := open(t, clustertest.Namespace(t))
		if _, err := j.Load(t.Context(), "abc"); err == nil || !strings.Contains(err.Error(), `"abc"`) {
			t.Errorf("%v", err)
		}
		if reads, _, _ := wire.take(); reads != 0 {
			t.Errorf("%d reads", reads)
		}
	})
}

func TestABundleWhoseWriteFailedIsNotBelievedToBeThere(t *testing.T) {
	namespace := clustertest.Namespace(t)
	j, wire := open(t, namespace)
	b := setBundle(t, makeSet(t, secret("large", 600<<10, seed(t))))
	last := j.secretName(b.cut()[2].digest)
	full := func(r *http.Request) bool { return r.Method == http.MethodPost }
	wire.losing(full)
	var away *UnavailableError
	if _, err := j.Store(t.Context(), b); !errors.As(err, &away) {
		t.Fatalf("%v", err)
	}
	wire.losing(nil)
	// The answers were lost, the writes were not: the next one finds them.
	digest := store(t, j, b)
	if _, err := j.Load(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	if !j.knows(last) {
		t.Error("a part that was read is not known")
	}
}

func TestValuesOfSecretsStandInSecretsOnly(t *testing.T) {
	const canary = "canary-5f2c9d"
	namespace := clustertest.Namespace(t)
	j, _ := begun(t, namespace)
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "key", "namespace": "shop"},
		"data": map[string]any{"password": base64.StdEncoding.EncodeToString([]byte(canary))}, "stringData": map[string]any{"plain": canary},
	}}
	digests := []string{store(t, j, setBundle(t, makeSet(t, u)))}
	images, err := ImagesBundle([]*unstructured.Unstructured{u})
	if err != nil {
		t.Fatal(err)
	}
	digests = append(digests, store(t, j, images))

	client, err := kubernetes.NewForConfig(clustertest.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	secrets, err := client.CoreV1().Secrets(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets.Items {
		fmt.Fprintf(&seen, "%s %s %v\n", s.Name, s.Type, s.ObjectMeta)
		if bundle := s.Labels[partLabel] == "bundle"; bundle != (s.Immutable != nil && *s.Immutable) {
			t.Errorf("Secret %s of type %s: immutable %v", s.Name, s.Type, s.Immutable)
		}
	}
	maps, err := client.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps.Items {
		fmt.Fprintln(&seen, m)
	}
	events, err := client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(&seen, events)
	for _, digest := range digests {
		name := j.secretName(digest)
		for _, data := range [][]byte{[]byte(canary), []byte("{")} { // what is unpacked is not quoted either
			packed, err := compress(data)
			if err != nil {
				t.Fatal(err)
			}
			damage(t, j, name, packed)
			_, err = j.Load(t.Context(), digest)
			fmt.Fprintln(&seen, err)
		}
	}
	for _, form := range []string{canary, base64.StdEncoding.EncodeToString([]byte(canary))} {
		if i := strings.Index(seen.String(), form); i >= 0 {
			t.Errorf("%q was seen: %.200s", form, seen.String()[max(0, i-100):])
		}
	}
}

func FuzzItemsThatAreDamagedAreRefusedOrRead(f *testing.F) {
	var buf bytes.Buffer
	writeItem(&buf, []byte("one"))
	writeItem(&buf, nil)
	writeItem(&buf, bytes.Repeat([]byte("x"), 300))
	f.Add(buf.Bytes())
	f.Add([]byte{0x80})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0})
	f.Fuzz(func(t *testing.T, content []byte) {
		items, err := readItems(content)
		if err != nil {
			return
		}
		var again bytes.Buffer
		for _, item := range items {
			writeItem(&again, item)
		}
		back, err := readItems(again.Bytes())
		if err != nil || !slices.EqualFunc(items, back, bytes.Equal) {
			t.Errorf("%q: %q, %v", items, back, err)
		}
	})
}
