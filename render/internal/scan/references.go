package scan

import (
	"fmt"
	"net/url"
	"path"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/nexus-platform/reconciler/render/internal/manifest"
)

// role is what kustomize does with what a field refers to.
type role int

const (
	asResource   role = iota // a file of objects, or a directory with a kustomization
	asComponent              // a directory with a component
	asPlugin                 // a file of plugin configurations, a directory, or a configuration written in place
	asPatch                  // a file, or a patch written in place
	asInline                 // a patch written in place
	asYAML                   // a file that kustomize parses
	asData                   // a file that goes into a ConfigMap as it is
	asSecretData             // a file that goes into a Secret as it is
)

// reference is one field that names a file.
type reference struct {
	field string
	value string
	role  role
}

// references are all fields of a kustomization that can name a file, so that nothing that kustomize would fetch is overlooked.
func references(k *types.Kustomization) []reference {
	var refs []reference
	add := func(role role, value, field string, at ...any) {
		refs = append(refs, reference{fmt.Sprintf(field, at...), value, role})
	}
	list := func(role role, field string, values []string) {
		for i, v := range values {
			add(role, v, "%s[%d]", field, i)
		}
	}
	list(asResource, "resources", k.Resources)
	list(asResource, "bases", k.Bases) //nolint:staticcheck // deprecated, but kustomize still follows it
	list(asComponent, "components", k.Components)
	list(asYAML, "crds", k.Crds)
	list(asYAML, "configurations", k.Configurations)
	list(asPlugin, "generators", k.Generators)
	list(asPlugin, "transformers", k.Transformers)
	list(asPlugin, "validators", k.Validators)
	if file, ok := k.OpenAPI["path"]; ok {
		add(asYAML, file, "openapi.path")
	}
	for field, patches := range map[string][]types.Patch{"patches": k.Patches, "patchesJson6902": k.PatchesJson6902} { //nolint:staticcheck // as above
		for i, p := range patches {
			if p.Path != "" {
				add(asYAML, p.Path, "%s[%d].path", field, i)
			}
			if p.Patch != "" {
				add(asInline, p.Patch, "%s[%d].patch", field, i)
			}
		}
	}
	for i, p := range k.PatchesStrategicMerge { //nolint:staticcheck // as above
		add(asPatch, string(p), "patchesStrategicMerge[%d]", i)
	}
	for i, r := range k.Replacements {
		if r.Path != "" {
			add(asYAML, r.Path, "replacements[%d].path", i)
		}
	}
	for i, g := range k.ConfigMapGenerator {
		refs = append(refs, generatorReferences(fmt.Sprintf("configMapGenerator[%d].", i), asData, g.KvPairSources)...)
	}
	for i, g := range k.SecretGenerator {
		refs = append(refs, generatorReferences(fmt.Sprintf("secretGenerator[%d].", i), asSecretData, g.KvPairSources)...)
	}
	return refs
}

func generatorReferences(prefix string, role role, from types.KvPairSources) []reference {
	var refs []reference
	for i, v := range from.FileSources {
		_, file, keyed := strings.Cut(v, "=")
		if !keyed {
			file = v
		}
		refs = append(refs, reference{fmt.Sprintf("%sfiles[%d]", prefix, i), file, role})
	}
	for i, v := range from.EnvSources {
		refs = append(refs, reference{fmt.Sprintf("%senvs[%d]", prefix, i), v, role})
	}
	if from.EnvSource != "" {
		refs = append(refs, reference{prefix + "env", from.EnvSource, role})
	}
	return refs
}

// pluginReferences are the fields of a builtin plugin's configuration that name a file.
func pluginReferences(kind string, n *yaml.Node) []reference {
	var refs []reference
	data := asData
	if kind == "SecretGenerator" {
		data = asSecretData
	}
	list := func(role role, field string) {
		if values := manifest.Field(n, field); values != nil && values.Kind == yaml.SequenceNode {
			for i, v := range values.Content {
				value := manifest.Text(v)
				if field == "replacements" {
					value = manifest.Text(manifest.Field(v, "path"))
				} else if _, file, keyed := strings.Cut(value, "="); keyed && field == "files" {
					value = file
				}
				if value != "" {
					refs = append(refs, reference{fmt.Sprintf("%s[%d]", field, i), value, role})
				}
			}
		}
	}
	for field, role := range map[string]role{"path": asYAML, "env": data, "patch": asInline, "patches": asInline, "jsonOp": asInline} {
		if v := manifest.Text(manifest.Field(n, field)); v != "" {
			refs = append(refs, reference{field, v, role})
		}
	}
	list(asYAML, "paths")
	list(asYAML, "replacements")
	list(data, "files")
	list(data, "envs")
	return refs
}

var (
	// Every form in which kustomize sees a URL or a repository, and those that Git itself would know.
	schemed  = regexp.MustCompile(`(?i)://|^(git|hg|s3|gcs|ext)::|^(https?|ssh|git|file):`)
	userHost = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9-]*@`)
	hosted   = regexp.MustCompile(`(?i)^github\.com[/:]|^[a-z0-9-]+(\.[a-z0-9-]+)+(:|/.*//|/.*\.git(/|$))`)
	control  = regexp.MustCompile(`[\x00-\x1f\x7f]`)
)

// locate says which path of the repository a reference of a kustomization in dir means, or why it means none.
// isFile reports whether the repository has a file at a path: what looks like a host may just be a name.
func locate(dir, value string, isFile func(string) bool) (target, why string) {
	switch {
	case value == "":
		return "", "is empty"
	case schemed.MatchString(value) || remoteURL(value):
		return "", "is a URL; only files of this repository are read, so copy what it refers to into it"
	case control.MatchString(value) || strings.Contains(value, `\`):
		return "", "is not a path"
	case strings.HasPrefix(value, "/"):
		return "", "is absolute; write the path relative to the kustomization"
	}
	target = path.Join(dir, value)
	if target == ".." || strings.HasPrefix(target, "../") {
		return "", "leaves the repository"
	}
	if (userHost.MatchString(value) || hosted.MatchString(value) || strings.Contains(value, "?")) && !isFile(target) {
		return "", "is another repository; only files of this repository are read, so copy what it refers to into it"
	}
	return target, ""
}

// remoteURL is kustomize's own test for what it would fetch.
func remoteURL(value string) bool {
	u, err := url.Parse(value)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https")
}
