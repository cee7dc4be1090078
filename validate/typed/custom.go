package typed

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/validate/kinds"
)

// custom is a CRD of the set, read once for all its resources.
type custom struct {
	crd      *apiextensions.CustomResourceDefinition
	err      error                  // why crd is nil
	faults   func() field.ErrorList // of the CRD itself
	versions map[string]*customVersion
}

// customVersion is what the API server would build from one version of a CRD.
type customVersion struct {
	structural *structuralschema.Structural
	validator  validation.SchemaValidator
	rules      *cel.Validator // nil: the schema has none
	status     bool           // status is written by its subresource alone
	err        error
}

func (c *check) readCRDs(ctx context.Context, set *object.Set) {
	for _, o := range set.Objects {
		if o.Ref.GroupKind() != kinds.CRD || o.Body.GetAPIVersion() != apiextensionsv1.SchemeGroupVersion.String() {
			continue // v1beta1 is long gone, which validate.Checker reports
		}
		crd, err := readCRD(o)
		k := &custom{
			crd: crd, err: err, versions: map[string]*customVersion{},
			faults: sync.OnceValue(func() field.ErrorList { return crdvalidation.ValidateCustomResourceDefinition(ctx, crd) }),
		}
		c.crds[o.Ref] = k
		if err == nil {
			c.customs[schema.GroupKind{Group: crd.Spec.Group, Kind: crd.Spec.Names.Kind}] = k
		}
	}
}

// readCRD does what the API server does when a CRD is created: defaults, internal form, stored version.
func readCRD(o object.Object) (*apiextensions.CustomResourceDefinition, error) {
	v1 := &apiextensionsv1.CustomResourceDefinition{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Body.Object, v1); err != nil {
		return nil, err
	}
	v1.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
	apiextensionsv1.SetObjectDefaults_CustomResourceDefinition(v1)
	crd := &apiextensions.CustomResourceDefinition{}
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(v1, crd, nil); err != nil {
		return nil, err
	}
	for _, v := range crd.Spec.Versions {
		if v.Storage {
			crd.Status.StoredVersions = append(crd.Status.StoredVersions, v.Name)
		}
	}
	return crd, nil
}

// crd checks a CRD itself, its schemas and CEL rules included.
func (c *check) crd(o object.Object) {
	k := c.crds[o.Ref]
	if k == nil {
		return
	}
	strict := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Body.Object, &apiextensionsv1.CustomResourceDefinition{}, true)
	if unknown, ok := runtime.AsStrictDecodingError(strict); ok {
		for _, err := range unknown.Errors() {
			name, _ := strconv.Unquote(strings.TrimPrefix(err.Error(), "unknown field "))
			c.refuse(o, "unknown-field", name, unknownMessage, unknownFix)
		}
	}
	if k.err != nil {
		c.refuse(o, "wrong-type", "", "cannot be read as a CustomResourceDefinition: "+k.err.Error(), "correct the type of the value")
		return
	}
	c.faults(o, k.faults(), "correct the CRD")
}

// custom checks a resource as the API server would with the CRD of the set: unknown
// fields, defaults, schema, lists, and where these pass the CEL rules.
func (c *check) custom(ctx context.Context, o object.Object, k *custom) {
	v := k.version(o.Body.GroupVersionKind().Version)
	if v == nil || v.err != nil || len(k.faults()) > 0 {
		return // what is wrong with the CRD is reported there, a version that it does not serve by validate.Checker
	}
	body := o.Body.DeepCopy().Object
	if v.status {
		delete(body, "status")
	}
	for _, path := range pruning.PruneWithOptions(body, v.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}) {
		c.refuse(o, "unknown-field", path, unknownMessage, unknownFix)
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(body, v.structural)
	defaulting.Default(body, v.structural)
	faults := objectmeta.Validate(ctx, nil, body, v.structural, true)
	faults = append(faults, validation.ValidateCustomResource(nil, body, v.validator)...)
	faults = append(faults, listtype.ValidateListSetsAndMaps(nil, v.structural, body)...)
	if len(faults) == 0 && v.rules != nil {
		faults, _ = v.rules.Validate(ctx, nil, v.structural, body, nil, celconfig.RuntimeCELCostBudget)
	}
	c.faults(o, faults, "correct it as the CRD demands")
}

func (k *custom) version(name string) *customVersion {
	if v, ok := k.versions[name]; ok {
		return v
	}
	v := k.build(name)
	k.versions[name] = v
	return v
}

func (k *custom) build(name string) *customVersion {
	if !slices.ContainsFunc(k.crd.Spec.Versions, func(v apiextensions.CustomResourceDefinitionVersion) bool { return v.Name == name && v.Served }) {
		return nil
	}
	found, err := apiextensions.GetSchemaForVersion(k.crd, name)
	if err != nil || found == nil || found.OpenAPIV3Schema == nil {
		return nil
	}
	v := &customVersion{}
	if v.structural, v.err = structuralschema.NewStructural(found.OpenAPIV3Schema); v.err != nil {
		return v
	}
	if v.validator, _, v.err = validation.NewSchemaValidator(found.OpenAPIV3Schema); v.err != nil {
		return v
	}
	v.rules = cel.NewValidator(v.structural, true, celconfig.PerCallLimit)
	if sub, err := apiextensions.GetSubresourcesForVersion(k.crd, name); err == nil && sub != nil {
		v.status = sub.Status != nil
	}
	return v
}

// faults turns the errors of the API server's own code into findings, without the values that they carry.
func (c *check) faults(o object.Object, faults field.ErrorList, fix string) {
	for _, f := range faults {
		name := strings.TrimPrefix(f.Field, "<nil>")
		_, message, found := strings.Cut(f.Detail, " in body ")
		if !found {
			message = f.Detail
		}
		message, _, _ = strings.Cut(message, "\n") // the compiler of CEL draws the place below
		switch {
		case f.Type == field.ErrorTypeRequired && message == "":
			message = "is missing"
		case f.Type == field.ErrorTypeDuplicate:
			message = "is there twice"
		case message == "":
			message = strings.ToLower(f.Type.String())
		}
		// The internal form keeps a schema that all versions share in one place.
		if rest, shared := strings.CutPrefix(name, "spec.validation."); shared {
			name = "spec.versions[0].schema." + rest
		}
		c.refuse(o, "schema", name, message, fix)
	}
}
