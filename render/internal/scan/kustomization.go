package scan

import (
	"fmt"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/render/internal/manifest"
	"github.com/nexus-platform/reconciler/render/internal/wire"
)

// load finds and reads the kustomization of a directory; nil after an error.
func (s *Scan) load(dir string) (string, *types.Kustomization) {
	var file string
	for _, base := range konfig.RecognizedKustomizationFileNames() {
		p := path.Join(dir, base)
		f := s.files.Get(p)
		if f.Err != nil {
			s.found(f.Err)
			return "", nil
		}
		if f.Kind != wire.Regular {
			continue
		}
		if file != "" {
			s.found(&wire.KustomizationError{File: dir, Reason: fmt.Sprintf("has both %s and %s; keep one", path.Base(file), base)})
			return "", nil
		}
		file = p
	}
	if file == "" {
		s.found(&wire.KustomizationError{File: dir, Reason: "has no kustomization.yaml"})
		return "", nil
	}
	docs, err := s.files.Documents(file)
	if err != nil {
		s.found(err)
		return "", nil
	}
	if len(docs) != 1 || docs[0].Root.Kind != yaml.MappingNode {
		s.found(&wire.KustomizationError{File: file, Reason: fmt.Sprintf("holds %d documents; a kustomization is exactly one mapping", len(docs))})
		return "", nil
	}
	k := &types.Kustomization{}
	if err := k.Unmarshal(s.files.Get(file).Content); err != nil {
		reason := strings.NewReplacer("invalid Kustomization: ", "", "json: ", "", "Go struct field Kustomization.", "field ").Replace(err.Error())
		s.found(&wire.KustomizationError{File: file, Reason: s.files.Secrets.Clean(reason)})
		return "", nil
	}
	for _, reason := range k.EnforceFields() {
		s.found(&wire.KustomizationError{File: file, Reason: reason})
	}
	if err := k.CheckEmpty(); err != nil {
		s.found(&wire.KustomizationError{File: file, Reason: "is empty"})
	}
	return file, k
}

// values remembers what a kustomization writes into Secrets, so that no error quotes it.
func (s *Scan) values(k *types.Kustomization) {
	for _, g := range k.SecretGenerator {
		for _, literal := range g.LiteralSources {
			_, value, ok := strings.Cut(literal, "=")
			if !ok {
				value = literal // somebody forgot the key
			}
			s.files.Secrets.Add(value)
		}
	}
}

// generated tells origins which objects the kustomization's generators will make.
func (s *Scan) generated(file string, k *types.Kustomization, at place) {
	from := object.Origin{Path: file}
	for _, g := range k.ConfigMapGenerator {
		s.Origins.add(manifest.Object{APIVersion: "v1", Kind: "ConfigMap", Name: g.Name, Namespace: g.Namespace}, at, from)
	}
	for _, g := range k.SecretGenerator {
		s.Origins.add(manifest.Object{APIVersion: "v1", Kind: "Secret", Name: g.Name, Namespace: g.Namespace}, at, from)
	}
}
