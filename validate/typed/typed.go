// Package typed checks the fields of objects without a cluster: built-in kinds by their
// Go types, custom resources by the CRD that comes with them, CEL rules included.
package typed

import (
	"context"
	"errors"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/validate"
	"github.com/nexus-platform/reconciler/validate/kinds"
)

// Check looks at the objects that only selects; nil selects all. Custom resources whose
// CRD is not in the set are left out: only the cluster knows them. The error is ctx's.
func Check(ctx context.Context, set *object.Set, only func(object.Ref) bool) (validate.Findings, error) {
	if set.Len() == 0 {
		return nil, nil
	}
	c := &check{
		converter: applyconfigurations.NewTypeConverter(scheme.Scheme),
		crds:      map[object.Ref]*custom{},
		customs:   map[schema.GroupKind]*custom{},
	}
	c.readCRDs(ctx, set)
	for _, o := range set.Objects {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if only != nil && !only(o.Ref) {
			continue
		}
		gvk := o.Body.GroupVersionKind()
		switch {
		case o.Ref.GroupKind() == kinds.CRD:
			c.crd(o)
		case scheme.Scheme.Recognizes(gvk):
			c.builtIn(o)
		case c.customs[gvk.GroupKind()] != nil:
			c.custom(ctx, o, c.customs[gvk.GroupKind()])
		}
	}
	return validate.Merge(c.findings), nil
}

type check struct {
	converter managedfields.TypeConverter
	crds      map[object.Ref]*custom       // every CRD of the set
	customs   map[schema.GroupKind]*custom // those that can be read, by the kind that they bring
	findings  validate.Findings
}

func (c *check) refuse(o object.Object, rule, field, message, fix string) {
	c.findings = append(c.findings, validate.Finding{
		Rule: rule, Severity: validate.Error, Object: o.Ref, Origin: o.Origin, Field: field, Message: message, Fix: fix,
	})
}

const (
	unknownMessage = "is no field of this kind"
	unknownFix     = "correct its name or its place"
)

// builtIn checks an object in three steps, each on what the one before has left: fields
// that do not exist, fields of the wrong type, values that the type cannot read.
func (c *check) builtIn(o object.Object) {
	gvk := o.Body.GroupVersionKind()
	blank := &unstructured.Unstructured{}
	blank.SetGroupVersionKind(gvk)
	model, err := c.converter.ObjectToTyped(blank)
	if err != nil {
		return // a kind without a schema, such as a review
	}
	body := o.Body.DeepCopy()
	w := pruner{schema: model.Schema()}
	w.prune(body.Object, model.TypeRef(), "")
	for _, field := range w.unknown {
		c.refuse(o, "unknown-field", field, unknownMessage, unknownFix)
	}
	if _, err := c.converter.ObjectToTyped(body); err != nil {
		c.wrongTypes(o, err)
		return
	}
	c.values(o, body)
}

// wrongTypes reports without the values, which structured-merge-diff appends.
func (c *check) wrongTypes(o object.Object, err error) {
	var faults typed.ValidationErrors
	if !errors.As(err, &faults) {
		c.refuse(o, "wrong-type", "", "does not have the shape of its kind", "compare it with the documentation of the kind")
		return
	}
	for _, f := range faults {
		message, _, _ := strings.Cut(f.ErrorMessage, ", got")
		c.refuse(o, "wrong-type", strings.TrimPrefix(f.Path, "."), message, "correct the value")
	}
}

// maxValues bounds how many unreadable values of one object are looked for.
const maxValues = 20

// values finds what has the right type and cannot be read, such as the quantity "1 GB" or base64 that is none.
func (c *check) values(o object.Object, body *unstructured.Unstructured) {
	readable := func(m map[string]any) error {
		into, err := scheme.Scheme.New(o.Body.GroupVersionKind())
		if err != nil {
			return nil //nolint:nilerr // a kind that the scheme does not make has no values to read
		}
		return runtime.DefaultUnstructuredConverter.FromUnstructured(m, into)
	}
	for range maxValues {
		path, err := locate(body.Object, readable)
		if err == nil {
			return
		}
		reason, _, _ := strings.Cut(err.Error(), `"`) // a value would follow
		if o.Ref.Group == "" && o.Ref.Kind == "Secret" {
			reason = "is not base64"
		}
		c.refuse(o, "wrong-value", fieldOf(path), "cannot be read: "+strings.TrimSpace(reason), "correct the value")
		if len(path) == 0 {
			return // the next round would find the same
		}
		drop(body.Object, path)
	}
}
