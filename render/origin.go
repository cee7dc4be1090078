package render

import (
	"regexp"
	"strings"

	"sigs.k8s.io/kustomize/api/types"

	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/render/internal/manifest"
)

// place is what the kustomizations around an object do to its name.
type place struct{ prefix, suffix, namespace string }

// inside is the place of what k holds, where k itself is at p.
func (p place) inside(k *types.Kustomization) place {
	in := place{p.prefix + k.NamePrefix, k.NameSuffix + p.suffix, p.namespace}
	if in.namespace == "" {
		in.namespace = k.Namespace
	}
	return in
}

// origins remembers where objects were written, by what they will be called. kustomize's own origin annotations are not
// used: with them a patch that adds the first annotation would pass here and fail elsewhere.
type origins struct {
	exact, loose map[object.Ref]object.Origin // loose: without the namespace, which transformers may set in other ways
	kinds        map[string][]written
}

type written struct {
	name string
	from object.Origin
}

func (o *origins) add(m manifest.Object, at place, from object.Origin) {
	if o.exact == nil {
		o.exact, o.loose, o.kinds = make(map[object.Ref]object.Origin), make(map[object.Ref]object.Origin), make(map[string][]written)
	}
	group, _, versioned := strings.Cut(m.APIVersion, "/")
	if !versioned {
		group = ""
	}
	ref := object.Ref{Group: group, Kind: m.Kind, Namespace: m.Namespace, Name: at.prefix + m.Name + at.suffix}
	if at.namespace != "" {
		ref.Namespace = at.namespace
	}
	keep(o.exact, ref, from)
	ref.Namespace = ""
	keep(o.loose, ref, from)
	o.kinds[group+"/"+m.Kind] = append(o.kinds[group+"/"+m.Kind], written{m.Name, from})
}

// keep remembers the first: what comes later under the same name is an error, or merged into it.
func keep(m map[object.Ref]object.Origin, ref object.Ref, from object.Origin) {
	if _, ok := m[ref]; !ok {
		m[ref] = from
	}
}

// hashSuffix is what generators put behind a name.
var hashSuffix = regexp.MustCompile(`-[a-z0-9]{10}$`)

// of finds the origin of a rendered object; the zero Origin if nothing fits.
func (o *origins) of(ref object.Ref) object.Origin {
	for _, name := range []string{ref.Name, hashSuffix.ReplaceAllString(ref.Name, "")} {
		in := ref
		in.Name = name
		if from, ok := o.exact[in]; ok {
			return from
		}
		in.Namespace = ""
		if from, ok := o.loose[in]; ok {
			return from
		}
	}
	// A transformer of the user's own has renamed it: take the longest name that is still in it.
	var best written
	for _, w := range o.kinds[ref.Group+"/"+ref.Kind] {
		if len(w.name) > len(best.name) && strings.Contains(ref.Name, w.name) {
			best = w
		}
	}
	return best.from
}
