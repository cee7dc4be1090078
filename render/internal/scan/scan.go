// Package scan walks all that an overlay reaches before kustomize does, and finds what is wrong with it: kustomize itself would fetch URLs, run programs, write aliases out, and stop at the first error.
package scan

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/nexus-platform/reconciler/render/internal/manifest"
	"github.com/nexus-platform/reconciler/render/internal/source"
	"github.com/nexus-platform/reconciler/render/internal/wire"
)

// maxValueBytes is what a ConfigMap or Secret can hold.
const maxValueBytes = 1 << 20

// Scan is one walk.
type Scan struct {
	files   *source.Source
	limits  wire.Limits
	Origins Origins
	Parts   Parts

	stack   []string // directories of the kustomizations that include each other
	reached int      // kustomizations
	objects int
	parsed  map[string][]entry
	errs    wire.Errors
}

// entry is one object of a file.
type entry struct {
	manifest.Object
	line int
	node *yaml.Node // of a plugin's configuration, else nil
}

// New is a walk through files that has not begun.
func New(files *source.Source, limits wire.Limits) *Scan {
	return &Scan{files: files, limits: limits, parsed: make(map[string][]entry)}
}

// errEnough ends a scan at a limit: to go on would be what the limit forbids.
var errEnough = errors.New("enough")

// Overlay scans all that the overlay at dir reaches, and what lies beside it. Its error is an Errors.
func (s *Scan) Overlay(dir string) error {
	if f := s.files.Get(dir); f.Err != nil {
		return wire.Errors{f.Err}
	} else if f.Kind != wire.Directory {
		return wire.Errors{&wire.MissingError{Path: dir}}
	}
	err := s.kustomization(dir, place{}, false, "")
	if err == nil {
		err = s.policy(path.Join(dir, wire.PolicyName))
	}
	if err != nil && !errors.Is(err, errEnough) {
		s.found(err)
	}
	if len(s.errs) > 0 {
		return s.errs
	}
	return nil
}

// found remembers an error, each once: a base that many use is scanned for each.
func (s *Scan) found(err error) {
	for _, e := range (wire.Errors{err}).Flat() {
		if !slices.ContainsFunc(s.errs, func(known error) bool { return known.Error() == e.Error() }) {
			s.errs = append(s.errs, e)
		}
	}
}

// policy vets the release policy, which the daemon parses itself.
func (s *Scan) policy(file string) error {
	if f := s.files.Get(file); f.Err == nil && f.Kind == wire.Absent {
		return nil
	}
	_, err := s.files.Documents(file)
	return err
}

// kustomization scans the one in dir, whose objects land at the given place; where plugins is set, they are configurations
// of plugins whose paths are relative to it. An error ends the scan.
func (s *Scan) kustomization(dir string, at place, component bool, plugins string) error {
	if real := s.files.Get(dir).Real; real != "" {
		dir = real
	}
	if err := s.enter(dir); err != nil {
		return err
	}
	if slices.Contains(s.stack, dir) {
		chain := append(slices.Clone(s.stack[slices.Index(s.stack, dir):]), dir)
		s.found(&wire.KustomizationError{File: dir, Reason: "includes itself: " + strings.Join(chain, " -> ")})
		return nil
	}
	s.stack = append(s.stack, dir)
	defer func() { s.stack = s.stack[:len(s.stack)-1] }()
	file, k := s.load(dir)
	if k == nil {
		return nil
	}
	if isComponent := k.Kind == types.ComponentKind; len(s.stack) > 1 && isComponent != component {
		s.found(&wire.KustomizationError{File: file, Reason: map[bool]string{
			true:  "is a Component; refer to it under components",
			false: "is not a Component; refer to it under resources",
		}[isComponent]})
	}
	if k.HelmGlobals != nil || len(k.HelmCharts) > 0 || len(k.HelmChartInflationGenerator) > 0 {
		s.found(&wire.PluginError{File: file, Plugin: "helm", Why: "would run a program and fetch charts; render the chart into the repository (helm template) and refer to the files"})
	}
	s.Parts.kustomization(k)
	s.values(k)
	at = at.inside(k)
	s.generated(file, k, at)
	for _, ref := range references(k) {
		if err := s.reference(file, dir, ref, at, plugins); err != nil {
			return err
		}
	}
	return nil
}

// enter counts a kustomization.
func (s *Scan) enter(dir string) error {
	if s.reached++; s.reached > s.limits.Kustomizations {
		s.found(&wire.LimitError{File: dir, Limit: "Kustomizations", Max: int64(s.limits.Kustomizations),
			What: fmt.Sprintf("more than %d kustomizations are reached", s.limits.Kustomizations)})
		return errEnough
	}
	if len(s.stack) >= s.limits.Depth {
		s.found(&wire.LimitError{File: dir, Limit: "Depth", Max: int64(s.limits.Depth),
			What: fmt.Sprintf("kustomizations are nested deeper than %d", s.limits.Depth)})
		return errEnough
	}
	return nil
}

// reference checks one field of a kustomization, or of a plugin's configuration, and follows it.
func (s *Scan) reference(file, dir string, ref reference, at place, plugins string) error {
	if s.inPlace(file, dir, ref) {
		return nil
	}
	refuse := func(why string) {
		s.found(&wire.ReferenceError{File: file, Field: ref.field, Reference: clip(ref.value), Why: why})
	}
	target, why := locate(dir, ref.value, func(p string) bool { return s.files.Get(p).Kind == wire.Regular })
	if why != "" {
		refuse(why)
		return nil
	}
	f := s.files.Get(target)
	switch {
	case f.Err != nil:
		s.found(f.Err)
		return enough(f.Err)
	case f.Kind == wire.Absent:
		refuse("is not in the repository")
		return nil
	case f.Kind == wire.Directory && ref.role != asResource && ref.role != asComponent && ref.role != asPlugin:
		refuse("is a directory, where a file is wanted")
		return nil
	case f.Kind == wire.Regular && ref.role != asData && slices.Contains(konfig.RecognizedKustomizationFileNames(), path.Base(target)):
		refuse("is a kustomization; refer to its directory")
		return nil
	case f.Kind == wire.Regular && ref.role == asComponent:
		refuse("is a file, where the directory of a component is wanted")
		return nil
	}
	if ref.role != asResource {
		s.Parts.reads(target)
	}
	switch ref.role {
	case asResource, asComponent, asPlugin:
		if ref.role == asPlugin && plugins == "" {
			plugins = dir
		}
		if f.Kind == wire.Directory {
			return s.kustomization(target, at, ref.role == asComponent, plugins)
		}
		if plugins != "" {
			return s.pluginFile(target, plugins)
		}
		return s.resources(target, at)
	case asData, asSecretData:
		if len(f.Content) > maxValueBytes {
			s.found(&wire.FileError{File: target, Reason: "is over 1 MiB, more than a ConfigMap or Secret can hold"})
		}
		if ref.role == asSecretData && len(f.Content) <= 16<<10 {
			s.files.Secrets.AddText(f.Content, s.files.ManifestLimits())
		}
	default:
		if _, err := s.files.Documents(target); err != nil {
			s.found(err)
		}
	}
	return nil
}

// enough ends the scan where a limit was crossed: the next file would cross it again.
func enough(err error) error {
	var limit *wire.LimitError
	if errors.As(err, &limit) && limit.Limit != "FileBytes" {
		return errEnough
	}
	return nil
}

// inPlace vets what is written into the field itself, and reports whether it is that and no path. kustomize
// tells them apart by trying to parse them.
func (s *Scan) inPlace(file, dir string, ref reference) bool {
	if ref.role != asInline && ref.role != asPatch && ref.role != asPlugin {
		return false
	}
	docs, err := manifest.Parse([]byte(ref.value), s.files.ManifestLimits())
	if err != nil && (ref.role == asInline || strings.Contains(ref.value, "\n")) {
		s.found(source.ManifestErrors(file, fmt.Errorf("%w", prefixed(ref.field, err))))
		return true
	}
	if ref.role == asInline {
		return true
	}
	if err != nil || len(docs) == 0 || docs[0].Root.Kind != yaml.MappingNode {
		return false
	}
	if ref.role == asPlugin {
		for _, d := range docs {
			s.plugin(file, dir, entry{Object: manifest.ObjectOf(d.Root), node: d.Root})
		}
	}
	return true
}

// prefixed puts the field before the reasons of a text that has lines of its own.
func prefixed(field string, err error) error {
	var found manifest.Errors
	errors.As(err, &found)
	out := make(manifest.Errors, len(found))
	for i, e := range found {
		out[i] = &manifest.Error{Reason: field + ": " + e.Error()}
	}
	return out
}

// clip keeps a value readable, and a frame small.
func clip(value string) string {
	if len(value) > 300 {
		return strings.ToValidUTF8(value[:300], "") + "…"
	}
	return value
}
