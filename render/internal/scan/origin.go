package scan

import (
	"cmp"
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

// Origins remembers where objects were written, by what they will be called. kustomize's own origin annotations are not
// used: with them a patch that adds the first annotation would pass here and fail elsewhere.
type Origins struct {
	exact, loose map[manifestID]object.Origin // loose: without the namespace, which transformers may set in other ways
	kinds        map[manifestID][]written     // by apiVersion and kind alone
}

type manifestID struct{ apiVersion, kind, namespace, name string }

type written struct {
	name string
	from object.Origin
}

func (o *Origins) add(m manifest.Object, at place, from object.Origin) {
	if o.exact == nil {
		o.exact, o.loose, o.kinds = make(map[manifestID]object.Origin), make(map[manifestID]object.Origin), make(map[manifestID][]written)
	}
	kind := manifestID{apiVersion: m.APIVersion, kind: m.Kind}
	o.kinds[kind] = append(o.kinds[kind], written{m.Name, from})
	id := kind
	id.name = at.prefix + m.Name + at.suffix
	keep(o.loose, id, from)
	id.namespace = cmp.Or(at.namespace, m.Namespace)
	keep(o.exact, id, from)
}

// keep remembers the first: what comes later under the same name is an error, or merged into it.
func keep(m map[manifestID]object.Origin, id manifestID, from object.Origin) {
	if _, ok := m[id]; !ok {
		m[id] = from
	}
}

// hashSuffix is what generators put behind a name.
var hashSuffix = regexp.MustCompile(`-[a-z0-9]{10}$`)

// Of finds the origin of a rendered object; the zero Origin if nothing fits.
func (o *Origins) Of(m manifest.Object) object.Origin {
	for _, name := range []string{m.Name, hashSuffix.ReplaceAllString(m.Name, "")} {
		id := manifestID{m.APIVersion, m.Kind, m.Namespace, name}
		if from, ok := o.exact[id]; ok {
			return from
		}
		id.namespace = ""
		if from, ok := o.loose[id]; ok {
			return from
		}
	}
	// A transformer of the user's own has renamed it: take the longest name that is still in it.
	var best written
	for _, w := range o.kinds[manifestID{apiVersion: m.APIVersion, kind: m.Kind}] {
		if len(w.name) > len(best.name) && strings.Contains(m.Name, w.name) {
			best = w
		}
	}
	return best.from
}
