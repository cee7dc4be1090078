package child

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
	"github.com/nexus-platform/reconciler/render/internal/scan"
	"github.com/nexus-platform/reconciler/render/internal/source"
	"github.com/nexus-platform/reconciler/render/internal/wire"
)

// builder has kustomize build what scan has vetted.
type builder struct {
	tree    *source.Source
	dir     string
	limits  wire.Limits
	origins *scan.Origins
	parts   *scan.Parts
}

func (b *builder) build() ([]rendered, error) {
	built, err := b.inParts()
	if err != nil {
		return nil, err
	}
	if len(built) > b.limits.Objects {
		return nil, wire.TooManyObjects(b.limits)
	}
	objects := make([]rendered, 0, len(built))
	var errs wire.Errors
	for _, r := range built {
		o, err := b.finish(r)
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

// run runs kustomize once. instead holds the content of files that is not the tree's.
func (b *builder) run(instead map[string][]byte) ([]*resource.Resource, error) {
	options := krusty.MakeDefaultOptions()
	// Many repositories share files outside of a kustomization's directory; the tree ends at the repository.
	options.LoadRestrictions = types.LoadRestrictionsNone
	view := &files{Source: b.tree, instead: instead}
	built, err := krusty.MakeKustomizer(options).Run(view, path.Join("/", b.dir))
	switch {
	case err != nil && len(view.met) > 0:
		return nil, view.met // kustomize may have kept only the text of it
	case err != nil:
		return nil, b.explain(err)
	}
	return built.Resources(), nil
}

// finish makes JSON of an object, as kubectl would of kustomize's YAML: through it, since a plain word may be
// a boolean to one parser and text to the other.
func (b *builder) finish(r *resource.Resource) (rendered, error) {
	id := r.CurId()
	ref := object.Ref{Group: id.Group, Kind: id.Kind, Namespace: r.GetNamespace(), Name: id.Name}
	o := rendered{origin: b.origins.Of(manifest.Object{APIVersion: r.GetApiVersion(), Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name})}
	refuse := func(reason string) (rendered, error) {
		return rendered{}, &wire.ObjectError{Object: ref.String(), From: o.origin.String(), Reason: reason}
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
	if u.Object["data"] == nil {
		delete(u.Object, "data")
	}
	values, ok := plain.(map[string]any)
	if !ok && plain != nil {
		return nil, errors.New("stringData is not a mapping")
	}
	data, ok := u.Object["data"].(map[string]any)
	if !ok {
		if _, other := u.Object["data"]; other {
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
func (b *builder) explain(err error) error {
	dir, text := b.dir, err.Error()
	if m := recursed.FindStringSubmatch(text); m != nil {
		dir, text = name(m[1]), strings.TrimPrefix(text, m[0])
	}
	return &wire.BuildError{Path: dir, Reason: b.tree.Secrets.Clean(text)}
}
