package kube

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/kube/fault"
	"github.com/nexus-platform/reconciler/kube/fields"
	"github.com/nexus-platform/reconciler/object"
)

// Pre is what must still hold when a write arrives (protocol rule 5).
type Pre struct {
	// Create: nothing of that name is there.
	Create bool
	// UID and ResourceVersion of the object as it was planned; both, unless Create.
	UID             types.UID
	ResourceVersion string
	// Force takes fields from other managers: for objects of the inventory only, never to adopt.
	Force bool
	// Born is the stamp that the object carries: of this release if Create, else the
	// one that it has. An apply without it would take it away.
	Born string
	// Still is asked after each further look at the object, before it is written again; its error ends the write. nil: always yes.
	Still func(context.Context) error

	planned *fingerprint
}

// fingerprint tells whether what is ours of an object is still as planned, although its resourceVersion moved.
type fingerprint struct {
	fields []byte
	digest string
}

// PreOf is the precondition of an update of an object as it was read. A conflict that came only from its
// status or from fields of others is then repeated, a bounded number of times.
func PreOf(live *unstructured.Unstructured, force bool) Pre {
	pre := Pre{UID: live.GetUID(), ResourceVersion: live.GetResourceVersion(), Force: force, Born: live.GetAnnotations()[object.BornAnnotation]}
	if set, digest, err := fields.Fingerprint(live); err == nil {
		pre.planned = &fingerprint{fields: set, digest: digest}
	}
	return pre
}

// Applied is the answer to an apply.
type Applied struct {
	UID             types.UID
	ResourceVersion string
	Generation      int64
	Record          object.Record // without Rendered and Phase, which the caller knows
	Created         bool
	Unchanged       bool // the object was as asked for already
	Object          *unstructured.Unstructured
}

// unmatchable is a resourceVersion that no object has: etcd counts from 1, and the
// first write makes 2. With it, server-side apply creates a missing object and answers 409 to an existing one.
const unmatchable = "1"

// Limits of repeating a write to a busy object, and of waiting where the API server says Retry-After.
const (
	busyTries    = 5  // with growing pauses
	raceTries    = 20 // at once, where a controller only has to be quicker with its status
	busyDelay    = 20 * time.Millisecond
	retriesAfter = 4
)

// Apply makes an object what body says, by server-side apply with strict field validation. It adds
// the environment's label and the stamp; body may hold neither status nor bookkeeping (both are left out) and is
// not changed. Errors are those of this package: an existing object is an *ExistsError if
// pre.Create, except one that carries the stamp pre.Born already, which an earlier attempt created.
func (c *Cluster) Apply(ctx context.Context, body *unstructured.Unstructured, pre Pre) (Applied, error) {
	w, err := c.writing(ctx, body, pre)
	if err != nil {
		return Applied{}, err
	}
	live, status, err := w.send(ctx)
	if err != nil {
		return Applied{}, err
	}
	if pre.Create && status != http.StatusCreated && !w.ownCreation {
		return Applied{}, w.giveBack(ctx, live)
	}
	if live, err = w.shed(ctx, live); err != nil {
		return Applied{}, err
	}
	rec, err := fields.Record(live)
	if err != nil {
		return Applied{}, err
	}
	if !failpoint.Without(failpoint.HealthOfApplied) {
		c.cache.Wrote(live)
	}
	return Applied{
		UID: live.GetUID(), ResourceVersion: live.GetResourceVersion(), Generation: live.GetGeneration(), Record: rec,
		Created: pre.Create, Unchanged: live.GetResourceVersion() == w.pre.ResourceVersion, Object: live,
	}, nil
}

// DryRun asks the API server, admission included, what Apply with the same precondition would make of the object. It writes nothing.
func (c *Cluster) DryRun(ctx context.Context, body *unstructured.Unstructured, pre Pre) (*unstructured.Unstructured, error) {
	w, err := c.writing(ctx, body, pre)
	if err != nil {
		return nil, err
	}
	w.dry = true
	live, status, err := w.send(ctx)
	if err == nil && pre.Create && status != http.StatusCreated {
		return nil, fault.Exists(w.Ref, live, c.Environment)
	}
	return live, err
}

// writing is one apply under way.
type writing struct {
	c *Cluster
	fault.Request
	mapping     Mapping
	body        *unstructured.Unstructured // what is sent, without precondition
	pre         Pre
	dry         bool
	ownCreation bool // an earlier attempt of this release created it
}

func (c *Cluster) writing(ctx context.Context, body *unstructured.Unstructured, pre Pre) (*writing, error) {
	ref, gvk := object.RefOf(body), body.GroupVersionKind()
	m, err := c.locate(ctx, ref, gvk.Version)
	if err != nil {
		return nil, err
	}
	if !pre.Create && (pre.UID == "" || pre.ResourceVersion == "") {
		return nil, fault.Invalid(ref, "metadata", "an update needs the uid and the resourceVersion of what was planned")
	}
	if pre.planned == nil && !pre.Create {
		if l, ok := c.cache.Live(ref); ok && l.ResourceVersion == pre.ResourceVersion {
			pre.planned = PreOf(l.Object(), pre.Force).planned
		}
	}
	return &writing{c: c, Request: fault.Request{Ref: ref, Kind: gvk, Write: true}, mapping: m, body: fields.Dress(body, c.Environment, pre.Born), pre: pre}, nil
}

// send applies, and repeats while only the status of a busy object stood in the way.
func (w *writing) send(ctx context.Context) (*unstructured.Unstructured, int, error) {
	adopting := false
	for try := 1; ; try++ {
		live, status, err := w.patch(ctx, w.body, w.pre.Force || adopting)
		var conflict *ConflictError
		if err == nil || !errors.As(err, &conflict) {
			return live, status, err
		}
		if len(conflict.Fields) > 0 && !w.pre.Create {
			if adopting || w.pre.Force || !w.clientSideOnly(ctx, conflict) {
				return nil, 0, err
			}
			adopting = true
			continue
		}
		if try == busyTries {
			return nil, 0, err
		}
		if err := w.reread(ctx, err); err != nil {
			return nil, 0, err
		}
		if err := pause(ctx, busyDelay<<try); err != nil {
			return nil, 0, err
		}
	}
}

// reread looks at an object after a conflict. It moves the precondition on if the object may be written all
// the same, and else returns the error that the caller gets.
func (w *writing) reread(ctx context.Context, conflict error) error {
	now, err := w.c.Read(ctx, w.Ref, w.Kind.Version)
	var gone *NotFoundError
	switch {
	case errors.As(err, &gone) && w.pre.Create:
		return nil // was deleted in between: create again
	case err != nil:
		return err
	case w.pre.Create && !w.dry && now.GetDeletionTimestamp() == nil && w.born(now):
		w.ownCreation = true
		w.pre = PreOf(now, true)
		return nil
	case w.pre.Create:
		return fault.Exists(w.Ref, now, w.c.Environment)
	case now.GetUID() != w.pre.UID:
		return &ConflictError{Ref: w.Ref, Replaced: true, Cause: conflict}
	case w.pre.planned == nil || now.GetDeletionTimestamp() != nil:
		return conflict
	}
	digest, err := LiveDigest(now, w.pre.planned.fields)
	if err != nil {
		return err
	}
	if digest != w.pre.planned.digest {
		return conflict
	}
	w.pre.ResourceVersion = now.GetResourceVersion()
	if w.pre.Still != nil {
		return w.pre.Still(ctx)
	}
	return nil
}

// born reports that this environment created live under the stamp of this write.
func (w *writing) born(live *unstructured.Unstructured) bool {
	return w.pre.Born != "" && live.GetAnnotations()[object.BornAnnotation] == w.pre.Born &&
		live.GetLabels()[object.EnvironmentLabel] == string(w.c.Environment)
}

// patch sends one server-side apply and returns the object with the HTTP status.
func (w *writing) patch(ctx context.Context, body *unstructured.Unstructured, force bool) (*unstructured.Unstructured, int, error) {
	top := maps.Clone(body.Object)
	meta := maps.Clone(top["metadata"].(map[string]any))
	switch {
	case w.pre.Create && failpoint.Without(failpoint.CreateOnly), !w.pre.Create && failpoint.Without(failpoint.UIDPrecondition):
	case w.pre.Create:
		meta["resourceVersion"] = unmatchable
	default:
		meta["uid"], meta["resourceVersion"] = string(w.pre.UID), w.pre.ResourceVersion
	}
	top["metadata"] = meta
	data, err := json.Marshal(top)
	if err != nil {
		return nil, 0, fault.Invalid(w.Ref, "", "cannot be written as JSON")
	}
	options := metav1.PatchOptions{FieldManager: object.FieldManager, FieldValidation: metav1.FieldValidationStrict, Force: &force}
	if w.dry {
		options.DryRun = []string{metav1.DryRunAll}
	}
	return w.c.do(ctx, w.Request, w.c.rest.Patch(types.ApplyPatchType).
		AbsPath(w.mapping.path(w.Ref.Namespace, w.Ref.Name)...).
		SpecificallyVersionedParams(&options, metav1.ParameterCodec, metav1.SchemeGroupVersion).
		Body(data))
}

// giveBack undoes an apply that was to create an object and found one: without a body, server-side apply removes
// exactly the fields that we alone own.
func (w *writing) giveBack(ctx context.Context, live *unstructured.Unstructured) error {
	w.pre = Pre{UID: live.GetUID(), ResourceVersion: live.GetResourceVersion()}
	meta := map[string]any{"name": w.Ref.Name}
	if w.Ref.Namespace != "" {
		meta["namespace"] = w.Ref.Namespace
	}
	bare := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": w.Kind.GroupVersion().String(), "kind": w.Kind.Kind, "metadata": meta,
	}}
	back, _, err := w.patch(ctx, bare, false)
	if err != nil {
		return err
	}
	return fault.Exists(w.Ref, back, w.c.Environment)
}

// do sends a request and decodes the object that answers it.
func (c *Cluster) do(ctx context.Context, q fault.Request, r *rest.Request) (*unstructured.Unstructured, int, error) {
	var status int
	result := r.MaxRetries(retriesAfter).Do(ctx).StatusCode(&status)
	if err := result.Error(); err != nil {
		err = q.Classify(err)
		var gone *NoKindError
		if errors.As(err, &gone) {
			c.kinds.forget(q.Kind)
		}
		return nil, status, err
	}
	raw, err := result.Raw()
	if err == nil {
		u := &unstructured.Unstructured{}
		if err = u.UnmarshalJSON(raw); err == nil {
			return u, status, nil
		}
		err = errors.New("it is not an object") // the decoder's text may quote it
	}
	return nil, status, q.Classify(err)
}

// pause waits, unless the context ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
