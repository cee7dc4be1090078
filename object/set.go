package object

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Object is one rendered object. Nothing changes Body after the set is made: whoever
// needs another form makes a DeepCopy.
type Object struct {
	Ref    Ref
	Body   *unstructured.Unstructured
	Digest string // SHA-256 of the canonical JSON of Body, hex
	Origin Origin // where it was written, for findings; not part of the digest
}

// Origin is the file, relative to the root of the repository, and the document in it that an object came from.
type Origin struct {
	Path string `json:"path,omitempty"`
	Line int    `json:"line,omitempty"` // first line of the document, from 1; 0 if unknown
}

func (o Origin) String() string {
	if o.Line > 0 {
		return fmt.Sprintf("%s:%d", o.Path, o.Line)
	}
	return o.Path
}

// Set is the rendered objects of one commit for one environment: immutable, in order of Ref, without duplicates.
type Set struct {
	Objects []Object
	Digest  string // SHA-256 over the refs and digests, hex
	byRef   map[Ref]int
}

// DuplicateError says that two documents describe one object.
type DuplicateError struct {
	Ref           Ref
	First, Second Origin
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("%s is described twice: in %s and in %s", e.Ref, e.First, e.Second)
}

// NewObject makes an Object of a body, which it owns from now on.
func NewObject(u *unstructured.Unstructured, from Origin) (Object, error) {
	sum, err := Digest(u.Object)
	if err != nil {
		return Object{}, fmt.Errorf("digest of %s: %w", RefOf(u), err)
	}
	return Object{Ref: RefOf(u), Body: u, Digest: sum, Origin: from}, nil
}

// NewSet orders objects and refuses two of the same Ref with a *DuplicateError.
func NewSet(objects []Object) (*Set, error) {
	s := &Set{Objects: slices.Clone(objects), byRef: make(map[Ref]int, len(objects))}
	slices.SortStableFunc(s.Objects, func(a, b Object) int {
		return cmp.Or(cmp.Compare(kindRank(a.Ref.Kind), kindRank(b.Ref.Kind)), a.Ref.Compare(b.Ref))
	})
	sum := sha256.New()
	for i, o := range s.Objects {
		if j, dup := s.byRef[o.Ref]; dup {
			return nil, &DuplicateError{Ref: o.Ref, First: s.Objects[j].Origin, Second: o.Origin}
		}
		s.byRef[o.Ref] = i
		fmt.Fprintf(sum, "%s\n%s\n%s\n%s\n%s\n", o.Ref.Group, o.Ref.Kind, o.Ref.Namespace, o.Ref.Name, o.Digest)
	}
	s.Digest = hex.EncodeToString(sum.Sum(nil))
	return s, nil
}

// Get finds an object of the set. A nil set is empty.
func (s *Set) Get(r Ref) (Object, bool) {
	if s == nil {
		return Object{}, false
	}
	i, ok := s.byRef[r]
	if !ok {
		return Object{}, false
	}
	return s.Objects[i], true
}

// Len is the number of objects. A nil set is empty.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.Objects)
}

// Digest is the SHA-256 of the canonical JSON (sorted keys, no white space) of v, hex.
func Digest(v any) (string, error) {
	b, err := json.Marshal(v) // encoding/json sorts the keys of maps
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}
