package kube

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/kube/fault"
	"github.com/nexus-platform/reconciler/kube/fields"
	"github.com/nexus-platform/reconciler/object"
)

// clientSideOnly reports a conflict with nobody but who applied the object client-side before it was adopted: that was the same hand.
func (w *writing) clientSideOnly(ctx context.Context, conflict *ConflictError) bool {
	live, err := w.c.Read(ctx, w.Ref, w.Kind.Version)
	if err != nil || live.GetUID() != w.pre.UID {
		return false
	}
	names := fields.ClientSide(live)
	return !slices.ContainsFunc(conflict.Managers(), func(m string) bool { return !slices.Contains(names, m) })
}

// shed takes the fields that we own away from who applied the object client-side before, whose claim
// would keep a field in the object after it has left Git. It needs a request only once, after an adoption.
func (w *writing) shed(ctx context.Context, live *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	for try := 1; ; try++ {
		entries, err := fields.WithoutOurs(live)
		if err != nil || entries == nil {
			return live, err
		}
		after, err := w.c.mergePatch(ctx, w.Request, w.mapping, live, map[string]any{"managedFields": entries})
		var conflict *ConflictError
		if !errors.As(err, &conflict) || try == raceTries {
			return after, err
		}
		if live, err = w.c.Read(ctx, w.Ref, w.Kind.Version); err != nil {
			return nil, err
		}
	}
}

// mergePatch changes metadata of exactly this state of an object.
func (c *Cluster) mergePatch(ctx context.Context, q fault.Request, m Mapping, live *unstructured.Unstructured, metadata map[string]any) (*unstructured.Unstructured, error) {
	metadata["uid"], metadata["resourceVersion"] = live.GetUID(), live.GetResourceVersion()
	data, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return nil, err
	}
	options := metav1.PatchOptions{FieldManager: object.FieldManager}
	u, _, err := c.do(ctx, q, c.rest.Patch(types.MergePatchType).AbsPath(m.path(q.Ref.Namespace, q.Ref.Name)...).
		SpecificallyVersionedParams(&options, metav1.ParameterCodec, metav1.SchemeGroupVersion).Body(data))
	return u, err
}

// Disown takes our label, stamp and field ownership off an object and changes nothing else of it. What is
// gone, or replaced by another object, needs nothing. A busy object is read again, a bounded number of times.
func (c *Cluster) Disown(ctx context.Context, live *unstructured.Unstructured) error {
	ref, gvk, uid := object.RefOf(live), live.GroupVersionKind(), live.GetUID()
	m, err := c.locate(ctx, ref, gvk.Version)
	if err != nil {
		return err
	}
	c.cache.Expect(ref, uid)
	q := fault.Request{Ref: ref, Kind: gvk, Write: true}
	for try := 1; ; try++ {
		_, err := c.mergePatch(ctx, q, m, live, map[string]any{
			"labels":        map[string]any{object.EnvironmentLabel: nil},
			"managedFields": withoutUs(live),
		})
		var conflict *ConflictError
		var gone *NotFoundError
		if errors.As(err, &gone) {
			return nil
		}
		if !errors.As(err, &conflict) || try == raceTries {
			return err
		}
		if live, err = c.Read(ctx, ref, gvk.Version); errors.As(err, &gone) {
			return nil
		}
		if err != nil {
			return err
		}
		if live.GetUID() != uid {
			return nil
		}
	}
}

// Restore gives an adopted object back as image, its state before the adoption, says: content and owners
// of fields. Status, finalizers and owner references stay what they are. One that the adoption did not reach
// keeps its content, but is moved on: an adoption that is still on its way then fails on its precondition (protocol
// rule 6), and nobody would find it later, for such an object is in no inventory. still is asked after each look at
// the object, before it is written; its error ends Restore. A *NotFoundError or a *ConflictError with Replaced says
// that the object is not there any more.
func (c *Cluster) Restore(ctx context.Context, image *unstructured.Unstructured, still func(context.Context) error) error {
	ref, gvk := object.RefOf(image), image.GroupVersionKind()
	m, err := c.locate(ctx, ref, gvk.Version)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		live, err := c.Read(ctx, ref, gvk.Version)
		if err != nil {
			return err
		}
		if live.GetUID() != image.GetUID() {
			return &ConflictError{Ref: ref, Replaced: true}
		}
		if err := still(ctx); err != nil {
			return err
		}
		c.cache.Expect(ref, live.GetUID())
		if !touched(live) || moving(live) {
			err = c.moveOn(ctx, m, live)
		} else if live, err = c.replace(ctx, m, image, live); err == nil && touched(live) {
			// The first update made us the owner of what it changed, the second gives that back.
			_, err = c.replace(ctx, m, image, live)
		}
		var conflict *ConflictError
		if !errors.As(err, &conflict) || try == raceTries {
			return err
		}
	}
}

// moveOn changes the resourceVersion of an object and leaves everything else as it was: a mark comes and goes.
func (c *Cluster) moveOn(ctx context.Context, m Mapping, live *unstructured.Unstructured) error {
	if failpoint.Without(failpoint.MoveOn) {
		return nil
	}
	q := fault.Request{Ref: object.RefOf(live), Kind: live.GroupVersionKind(), Write: true}
	if !moving(live) {
		marked, err := c.mergePatch(ctx, q, m, live, map[string]any{"annotations": map[string]any{object.MovedAnnotation: "now"}})
		if err != nil {
			return err
		}
		live = marked
	}
	_, err := c.mergePatch(ctx, q, m, live, map[string]any{
		"annotations": map[string]any{object.MovedAnnotation: nil}, "managedFields": withoutUs(live),
	})
	return err
}

// moving reports that the mark came and did not go yet.
func moving(live *unstructured.Unstructured) bool {
	_, marked := live.GetAnnotations()[object.MovedAnnotation]
	return marked && live.GetLabels()[object.EnvironmentLabel] == ""
}

// withoutUs are the owners of an object's fields but ourselves, as a patch writes them.
func withoutUs(live *unstructured.Unstructured) []metav1.ManagedFieldsEntry {
	others := slices.DeleteFunc(live.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool { return e.Manager == object.FieldManager })
	if len(others) == 0 {
		return []metav1.ManagedFieldsEntry{{}} // an empty list would mean: leave them
	}
	return others
}

// touched reports that fields or marks of ours are in an object.
func touched(live *unstructured.Unstructured) bool {
	return live.GetLabels()[object.EnvironmentLabel] != "" || slices.ContainsFunc(live.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool {
		return e.Manager == object.FieldManager
	})
}

// replace updates live to what image holds.
func (c *Cluster) replace(ctx context.Context, m Mapping, image, live *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	body := image.DeepCopy()
	body.SetResourceVersion(live.GetResourceVersion())
	body.SetFinalizers(live.GetFinalizers())
	body.SetOwnerReferences(live.GetOwnerReferences())
	if status, ok := live.Object["status"]; ok {
		body.Object["status"] = status
	} else {
		delete(body.Object, "status")
	}
	data, err := json.Marshal(body.Object)
	if err != nil {
		return nil, err
	}
	q := fault.Request{Ref: object.RefOf(image), Kind: image.GroupVersionKind(), Write: true}
	options := metav1.UpdateOptions{FieldManager: object.FieldManager}
	u, _, err := c.do(ctx, q, c.rest.Verb(http.MethodPut).AbsPath(m.path(q.Ref.Namespace, q.Ref.Name)...).
		SpecificallyVersionedParams(&options, metav1.ParameterCodec, metav1.SchemeGroupVersion).Body(data))
	return u, err
}
