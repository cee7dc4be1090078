package render

import (
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/render/internal/manifest"
)

// build has kustomize build what scan has vetted.
func build(files *source, dir string, from *origins) ([]rendered, error) {
	options := krusty.MakeDefaultOptions()
	// Many repositories share files outside of a kustomization's directory; source ends at the repository.
	options.LoadRestrictions = types.LoadRestrictionsNone
	built, err := krusty.MakeKustomizer(options).Run(files, path.Join("/", dir))
	if err != nil {
		return nil, files.explain(dir, err)
	}
	if built.Size() > files.limits.Objects {
		return nil, tooManyObjects(files.limits)
	}
	var objects []rendered
	var errs Errors
	for _, r := range built.Resources() {
		o, err := finish(r, from)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		objects = append(objects, o)
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return objects, nil
}

// finish makes JSON of an object, as kubectl would of kustomize's YAML: through it, since a plain word may be
// a boolean to one parser and text to the other.
func finish(r *resource.Resource, from *origins) (rendered, error) {
	id := r.CurId()
	ref := object.Ref{Group: id.Group, Kind: id.Kind, Namespace: r.GetNamespace(), Name: id.Name}
	o := rendered{origin: from.of(manifest.Object{APIVersion: r.GetApiVersion(), Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name})}
	refuse := func(reason string) (rendered, error) {
		return rendered{}, &ObjectError{Object: ref.String(), From: o.origin.String(), Reason: reason}
	}
	text, err := r.AsYAML()
	if err != nil {
		return refuse("cannot be written as YAML")
	}
	if o.json, err = yaml.YAMLToJSON(text); err != nil {
		return refuse("is not valid after rendering")
	}
	if ref.Group == "" && ref.Kind == "Secret" {
		if o.json, err = encodeStringData(o.json); err != nil {
			return refuse(err.Error())
		}
	}
	return o, nil
}

// encodeStringData does what the API server would with a Secret, so that the fields that are
// compared later are the fields that are there.
func encodeStringData(raw []byte) ([]byte, error) {
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(raw); err != nil {
		return nil, errors.New("is not an object")
	}
	plain, ok := u.Object["stringData"]
	if !ok {
		return raw, nil
	}
	delete(u.Object, "stringData")
	values, ok := plain.(map[string]any)
	if !ok && plain != nil {
		return nil, errors.New("stringData is not a mapping")
	}
	data, ok := u.Object["data"].(map[string]any)
	if !ok {
		if u.Object["data"] != nil {
			return nil, errors.New("data is not a mapping")
		}
		data = make(map[string]any, len(values))
	}
	for key, value := range values {
		text, ok := value.(string)
		if !ok {
			return nil, fmt.Errorf("stringData.%s is not text; put it in quotes", key)
		}
		data[key] = base64.StdEncoding.EncodeToString([]byte(text))
	}
	if len(data) > 0 {
		u.Object["data"] = data
	}
	return u.MarshalJSON()
}

var recursed = regexp.MustCompile(`(?s)^.*recursed (?:accumulation|merging) (?:of|from) path '/([^']*)': `)

// explain makes an error of kustomize short and safe: it names the innermost kustomization, and quotes no file and no secret.
func (s *source) explain(dir string, err error) error {
	if len(s.met) > 0 {
		return s.met // kustomize may have kept only the text of it
	}
	text := err.Error()
	if m := recursed.FindStringSubmatch(text); m != nil {
		dir, text = name(m[1]), strings.TrimPrefix(text, m[0])
	}
	return &BuildError{Path: dir, Reason: s.secrets.clean(text)}
}
