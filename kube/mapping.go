package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilversion "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apimachinery/pkg/version"

	"github.com/nexus-platform/reconciler/kube/fault"
	"github.com/nexus-platform/reconciler/object"
)

// Mapping says under which path the objects of a kind are served.
type Mapping struct {
	Resource   schema.GroupVersionResource
	Namespaced bool
	verbs      []string
}

// kinds is what discovery told last.
type kinds struct {
	mu      sync.Mutex
	byKind  map[schema.GroupVersionKind]Mapping
	failed  map[schema.GroupVersion]error // groups whose backend does not answer
	fetched time.Time
	server  *utilversion.Version // of the API server; nil until it was asked for
}

// rediscover is how old an answer of discovery must be before a kind that it lacks is asked for again.
const rediscover = 200 * time.Millisecond

// Mapping finds the path of a kind. What discovery told is kept; a kind that it
// lacks makes it ask again. The error is a *NoKindError if the cluster does not serve the kind.
func (c *Cluster) Mapping(ctx context.Context, gvk schema.GroupVersionKind) (Mapping, error) {
	k := &c.kinds
	k.mu.Lock()
	defer k.mu.Unlock()
	if m, ok := k.byKind[gvk]; ok {
		return m, nil
	}
	if k.byKind == nil || time.Since(k.fetched) > rediscover {
		if err := c.discover(ctx); err != nil {
			return Mapping{}, err
		}
	}
	if m, ok := k.byKind[gvk]; ok {
		return m, nil
	}
	if err := k.failed[gvk.GroupVersion()]; err != nil {
		return Mapping{}, &UnavailableError{Cause: err}
	}
	return Mapping{}, &NoKindError{Kind: gvk}
}

// Version returns the version of a kind that the API server itself would prefer among those that it serves: the
// most mature, then the newest. The error is a *NoKindError if it serves none.
func (c *Cluster) Version(ctx context.Context, gk schema.GroupKind) (string, error) {
	// A version that there never was makes Mapping ask discovery again where the kind is not known.
	if best := c.kinds.best(gk); best != "" {
		return best, nil
	}
	_, err := c.Mapping(ctx, gk.WithVersion(""))
	if best := c.kinds.best(gk); best != "" {
		return best, nil
	}
	return "", err
}

// best is the preferred version of a kind, as far as discovery told; empty if it told of none.
func (k *kinds) best(gk schema.GroupKind) (best string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for gvk := range k.byKind {
		if gvk.GroupKind() == gk && (best == "" || version.CompareKubeAwareVersionStrings(gvk.Version, best) > 0) {
			best = gvk.Version
		}
	}
	return best
}

// ServerVersion returns the version of the API server. It is asked for once, and again after discovery was.
func (c *Cluster) ServerVersion(ctx context.Context) (*utilversion.Version, error) {
	k := &c.kinds
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.server != nil {
		return k.server, nil
	}
	info, err := c.discovery.ServerVersionWithContext(ctx)
	if err != nil {
		return nil, fault.Request{}.Classify(err)
	}
	v, err := utilversion.ParseGeneric(info.GitVersion) // "-gke.1" is a build, not a version before that one
	if err != nil {
		return nil, fmt.Errorf("read the version of the API server: %w", err)
	}
	k.server = v
	return v, nil
}

// discover asks the API server for all it serves: two requests where discovery is aggregated. The caller holds the lock.
func (c *Cluster) discover(ctx context.Context) error {
	_, lists, failed, err := c.discovery.GroupsAndMaybeResourcesWithContext(ctx)
	if err != nil {
		return fault.Request{}.Classify(err)
	}
	if lists == nil { // a server without aggregated discovery: one request per group
		_, all, err := c.discovery.ServerGroupsAndResourcesWithContext(ctx)
		if err != nil && len(all) == 0 {
			return fault.Request{}.Classify(err)
		}
		return c.kinds.learn(all, failed)
	}
	all := make([]*metav1.APIResourceList, 0, len(lists))
	for _, l := range lists {
		all = append(all, l)
	}
	return c.kinds.learn(all, failed)
}

func (k *kinds) learn(lists []*metav1.APIResourceList, failed map[schema.GroupVersion]error) error {
	k.byKind = map[schema.GroupVersionKind]Mapping{}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			continue // a broken aggregated API must not hide the others
		}
		for _, r := range l.APIResources {
			if strings.Contains(r.Name, "/") { // a subresource
				continue
			}
			k.byKind[gv.WithKind(r.Kind)] = Mapping{Resource: gv.WithResource(r.Name), Namespaced: r.Namespaced, verbs: r.Verbs}
		}
	}
	if !k.fetched.IsZero() { // discovery is asked again because something is new: perhaps the server is
		k.server = nil
	}
	k.failed, k.fetched = failed, time.Now()
	return nil
}

// forget makes the next look-up of a kind ask again: the server said that it does not serve it any more.
func (k *kinds) forget(gvk schema.GroupVersionKind) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.byKind, gvk)
}

// listable returns the path of every namespaced kind that can be listed, each once whatever its versions.
func (k *kinds) listable() []schema.GroupVersionKind {
	k.mu.Lock()
	defer k.mu.Unlock()
	newest := map[schema.GroupKind]schema.GroupVersionKind{}
	for gvk, m := range k.byKind {
		if !m.Namespaced || !slices.Contains(m.verbs, "list") {
			continue
		}
		if have, ok := newest[gvk.GroupKind()]; !ok || version.CompareKubeAwareVersionStrings(gvk.Version, have.Version) > 0 {
			newest[gvk.GroupKind()] = gvk
		}
	}
	out := make([]schema.GroupVersionKind, 0, len(newest))
	for _, gvk := range newest {
		out = append(out, gvk)
	}
	return out
}

// path is the URL of an object; of the whole collection if name is empty.
func (m Mapping) path(namespace, name string) []string {
	var p []string
	if m.Resource.Group == "" {
		p = append(p, "api", m.Resource.Version)
	} else {
		p = append(p, "apis", m.Resource.Group, m.Resource.Version)
	}
	if m.Namespaced && namespace != "" {
		p = append(p, "namespaces", namespace)
	}
	p = append(p, m.Resource.Resource)
	if name != "" {
		p = append(p, name)
	}
	return p
}

// locate finds the path of one object and refuses one whose namespace does not fit its kind.
func (c *Cluster) locate(ctx context.Context, ref object.Ref, version string) (Mapping, error) {
	m, err := c.Mapping(ctx, ref.GroupKind().WithVersion(version))
	if err != nil {
		return Mapping{}, err
	}
	if ref.Name == "" {
		return Mapping{}, fault.Invalid(ref, "metadata.name", "is missing")
	}
	if m.Namespaced && ref.Namespace == "" {
		return Mapping{}, fault.Invalid(ref, "metadata.namespace", "is missing: "+ref.Kind+" objects are in namespaces")
	}
	if !m.Namespaced && ref.Namespace != "" {
		return Mapping{}, fault.Invalid(ref, "metadata.namespace", "is set: "+ref.Kind+" objects are in no namespace")
	}
	return m, nil
}
