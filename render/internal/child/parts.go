package child

import (
	"bytes"

	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/kyaml/resid"

	"github.com/nexus-platform/reconciler/render/internal/manifest"
	"github.com/nexus-platform/reconciler/render/internal/scan"
)

const (
	partSize  = 100          // objects; the fixed cost of a build and what grows with the square are about even there
	partsFrom = 2 * partSize // below it, one build is as fast
)

// inParts builds the overlay in parts where that gives the same, else at once.
func (b *builder) inParts() ([]*resource.Resource, error) {
	objects := 0
	for _, f := range b.parts.Files {
		objects += f.Objects
	}
	if objects >= partsFrom && b.parts.Separable() {
		if built, ok := b.assemble(); ok {
			return built, nil
		}
		// kustomize has something against a part: let it say so of the whole.
	}
	return b.run(nil)
}

// assemble builds the parts one after the other; false if any fails, or if two describe one object.
func (b *builder) assemble() ([]*resource.Resource, bool) {
	nothing := make(map[string][]byte, len(b.parts.Files))
	for _, f := range b.parts.Files {
		nothing[f.Path] = nil
	}
	var all []*resource.Resource
	generated, seen := make(map[resid.ResId]bool), make(map[resid.ResId]bool)
	add := func(instead map[string][]byte, into map[resid.ResId]bool) bool {
		built, err := b.run(instead)
		if err != nil {
			return false
		}
		for _, r := range built {
			id := r.CurId()
			id.Namespace = id.EffectiveNamespace()
			switch {
			case generated[id]: // generators run in each part
			case seen[id]:
				return false
			default:
				into[id] = true
				all = append(all, r)
			}
		}
		return true
	}
	if b.parts.Generates && !add(nothing, generated) {
		return nil, false
	}
	for _, part := range b.cut() {
		if !add(part.over(nothing), seen) {
			return nil, false
		}
	}
	return all, true
}

// part is the files of objects of one build, by path.
type part map[string][]byte

// over is nothing with what the part holds.
func (p part) over(nothing map[string][]byte) map[string][]byte {
	all := make(map[string][]byte, len(nothing))
	for path := range nothing {
		all[path] = p[path]
	}
	return all
}

// cut puts files together, and takes large ones apart, so that each part has about partSize objects.
func (b *builder) cut() []part {
	var parts []part
	now, objects := part{}, 0
	flush := func() {
		if len(now) > 0 {
			parts = append(parts, now)
			now, objects = part{}, 0
		}
	}
	for _, f := range b.parts.Files {
		for _, piece := range b.pieces(f) {
			if _, same := now[f.Path]; same || objects+piece.Objects > partSize {
				flush()
			}
			now[f.Path] = piece.content
			objects += piece.Objects
		}
	}
	flush()
	return parts
}

// piece is some documents of a file.
type piece struct {
	scan.FileOfObjects
	content []byte
}

// pieces cuts a file with many objects between its documents, if each document is one object.
func (b *builder) pieces(f scan.FileOfObjects) []piece {
	content := b.tree.Get(f.Path).Content
	docs := manifest.Split(content)
	if f.Objects <= partSize || len(docs) != f.Objects || bytes.HasPrefix(content, []byte("%")) || bytes.Contains(content, []byte("\n%")) {
		return []piece{{f, content}}
	}
	var pieces []piece
	for len(docs) > 0 {
		n := min(len(docs), partSize)
		pieces = append(pieces, piece{scan.FileOfObjects{Path: f.Path, Objects: n}, bytes.Join(docs[:n], []byte("\n---\n"))})
		docs = docs[n:]
	}
	return pieces
}
