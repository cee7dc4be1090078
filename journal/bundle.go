package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/nexus-platform/reconciler/object"
)

// Bundle is immutable content of the journal: a set, an inventory, pre-images or one document. It
// is named by the digest of what it holds.
type Bundle struct {
	kind    string
	items   [][]byte
	release int64 // that it is the plan of; 0: of none
}

// The kinds of bundles.
const (
	kindSet       = "set"
	kindInventory = "inventory"
	kindImages    = "images"
)

// stored is an object of a set as the journal keeps it. Of its origin only the path is kept: one line
// more at the head of a large file would otherwise write every object of it anew.
type stored struct {
	Origin object.Origin   `json:"origin,omitzero"`
	Body   json.RawMessage `json:"body"`
}

// SetBundle keeps a rendered set.
func SetBundle(s *object.Set) (Bundle, error) {
	b := Bundle{kind: kindSet}
	for _, o := range s.Objects {
		body, err := json.Marshal(o.Body.Object)
		if err != nil {
			return b, fmt.Errorf("encode %s: %w", o.Ref, err)
		}
		if err := b.add(stored{Origin: object.Origin{Path: o.Origin.Path}, Body: body}); err != nil {
			return b, fmt.Errorf("encode %s: %w", o.Ref, err)
		}
	}
	return b, nil
}

func (b *Bundle) add(v any) error {
	item, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b.items = append(b.items, item)
	return nil
}

// Set gives the set back as it was, but for the lines of its origins.
func (b Bundle) Set() (*object.Set, error) {
	if b.kind != kindSet {
		return nil, fmt.Errorf("the bundle holds a %s, not a set", b.kind)
	}
	objects := make([]object.Object, 0, len(b.items))
	for _, item := range b.items {
		var s stored
		if err := json.Unmarshal(item, &s); err != nil {
			return nil, fmt.Errorf("decode a set: %w", err)
		}
		u, err := decode(s.Body)
		if err != nil {
			return nil, fmt.Errorf("decode a set: %w", err)
		}
		o, err := object.NewObject(u, s.Origin)
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return object.NewSet(objects)
}

// decode reads an object. Its errors do not quote it, as those of Unstructured.UnmarshalJSON do: it may be a Secret.
func decode(body []byte) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	if err := utiljson.Unmarshal(body, &u.Object); err != nil {
		return nil, errors.New("it is not the JSON of an object")
	}
	if u.GetKind() == "" || u.GetName() == "" {
		return nil, errors.New("an object has no kind or no name")
	}
	return u, nil
}

// InventoryBundle keeps an inventory.
func InventoryBundle(inv object.Inventory) (Bundle, error) {
	b := Bundle{kind: kindInventory}
	for _, rec := range inv.Sorted() {
		if err := b.add(rec); err != nil {
			return b, fmt.Errorf("encode the record of %s: %w", rec.Ref, err)
		}
	}
	return b, nil
}

// Inventory gives the inventory back.
func (b Bundle) Inventory() (object.Inventory, error) {
	if b.kind != kindInventory {
		return nil, fmt.Errorf("the bundle holds a %s, not an inventory", b.kind)
	}
	inv := make(object.Inventory, len(b.items))
	for i, item := range b.items {
		if err := json.Unmarshal(item, &inv[i]); err != nil {
			return nil, fmt.Errorf("decode the inventory: %w", err)
		}
	}
	return inv, nil
}

// ImagesBundle keeps live objects as they were.
func ImagesBundle(images []*unstructured.Unstructured) (Bundle, error) {
	b := Bundle{kind: kindImages}
	for _, u := range images {
		if err := b.add(u.Object); err != nil {
			return b, fmt.Errorf("encode %s: %w", object.RefOf(u), err)
		}
	}
	return b, nil
}

// Images gives the objects back.
func (b Bundle) Images() ([]*unstructured.Unstructured, error) {
	if b.kind != kindImages {
		return nil, fmt.Errorf("the bundle holds a %s, not pre-images", b.kind)
	}
	images := make([]*unstructured.Unstructured, len(b.items))
	for i, item := range b.items {
		var err error
		if images[i], err = decode(item); err != nil {
			return nil, fmt.Errorf("decode a pre-image: %w", err)
		}
	}
	return images, nil
}

// BlobBundle keeps one document; kind says what it is.
func BlobBundle(kind string, content []byte) Bundle {
	return Bundle{kind: "blob/" + kind, items: [][]byte{content}}
}

// PlanBundle keeps the plan of a release, and tells of whose number it is: as long as it is there, no older head comes back.
func PlanBundle(plan []byte, release int64) Bundle {
	b := BlobBundle("plan", plan)
	b.release = release
	return b
}

// Blob gives the document back.
func (b Bundle) Blob() ([]byte, error) {
	if len(b.items) != 1 {
		return nil, fmt.Errorf("the bundle holds %d items, not one document", len(b.items))
	}
	return b.items[0], nil
}

// The size of a chunk before compression, in bytes. Its end is chosen by content, so that
// one changed item changes the chunk that it is in and at most the next: a release of one
// object writes little, whatever the size of the set.
const (
	chunkMin  = 16 << 10
	chunkMask = 0x1f // an item ends its chunk with a probability of 1/32
	chunkMax  = 256 << 10
)

// chunk is a run of items, each with its length before it, or a part of one large item.
type chunk struct {
	content []byte
	digest  string
}

// cut makes the chunks of a bundle.
func (b Bundle) cut() []chunk {
	var out []chunk
	var buf bytes.Buffer
	flush := func() {
		if buf.Len() > 0 {
			content := slices.Clone(buf.Bytes())
			out = append(out, chunk{content: content, digest: sum(content)})
			buf.Reset()
		}
	}
	for _, item := range b.items {
		if buf.Len() > 0 && buf.Len()+len(item) > chunkMax {
			flush()
		}
		writeItem(&buf, item)
		for buf.Len() > chunkMax { // a Secret holds 1 MiB, an object may be larger
			head := slices.Clone(buf.Next(chunkMax))
			out = append(out, chunk{content: head, digest: sum(head)})
		}
		if h := sha256.Sum256(item); buf.Len() >= chunkMin && h[0]&chunkMask == 0 {
			flush()
		}
	}
	flush()
	return out
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// index is what a bundle's own Secret holds.
type index struct {
	Kind   string   `json:"kind"`
	Items  int      `json:"items"`
	Chunks []string `json:"chunks,omitempty"` // digests
	Inline []byte   `json:"inline,omitempty"` // the only chunk, where it is small
}

// inlineMax is up to which size, compressed, the only chunk lies in the index itself: one Secret fewer.
const inlineMax = 64 << 10
