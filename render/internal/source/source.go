// Package source is a commit's tree as the render process knows it: each file checked before anybody parses it, decrypted, and kept out of every error.
package source

import (
	"errors"

	"filippo.io/age"

	"github.com/nexus-platform/reconciler/render/internal/manifest"
	"github.com/nexus-platform/reconciler/render/internal/wire"
)

// Upstream answers what is at a path of the tree, a name as fs.ValidPath wants it.
type Upstream interface {
	Ask(name string) (wire.Answer, []byte, error)
}

// Source is a tree: each path is asked for once, checked before anybody parses it, and decrypted.
type Source struct {
	up      Upstream
	keys    []age.Identity
	limits  wire.Limits
	files   map[string]*File
	Secrets Secrets
}

// File is one path of the tree.
type File struct {
	Kind    wire.FileKind
	Real    string // of a directory: its path, free of links
	Content []byte // decrypted
	Err     error  // why it cannot be read
	Vetted  bool   // Documents has seen the content
}

// New is the tree that up serves; keys decrypt SOPS files.
func New(up Upstream, keys []age.Identity, limits wire.Limits) *Source {
	return &Source{up: up, keys: keys, limits: limits, files: make(map[string]*File)}
}

// ManifestLimits are the limits of one YAML text.
func (s *Source) ManifestLimits() manifest.Limits {
	return manifest.Limits{Elements: s.limits.Elements, Aliases: s.limits.Aliases, Nesting: s.limits.Nesting}
}

// Get reads a path, a name as fs.ValidPath wants it.
func (s *Source) Get(name string) *File {
	if f, ok := s.files[name]; ok {
		return f
	}
	f := s.fetch(name)
	s.files[name] = f
	return f
}

func (s *Source) fetch(name string) *File {
	a, content, err := s.up.Ask(name)
	switch {
	case err != nil:
		return &File{Err: err}
	case a.Limit != nil:
		return &File{Err: a.Limit}
	case a.Failed:
		return &File{Err: &wire.FileError{File: name, Reason: "cannot be read"}}
	case a.Kind != wire.Regular:
		return &File{Kind: a.Kind, Real: a.Real}
	}
	plain, err := s.decrypt(name, content)
	if err != nil {
		return &File{Kind: wire.Regular, Err: err}
	}
	return &File{Kind: wire.Regular, Content: plain}
}

// Documents parses a file that is there. Its error is an Errors.
func (s *Source) Documents(name string) ([]manifest.Document, error) {
	f := s.Get(name)
	if f.Err != nil {
		return nil, wire.Errors{f.Err}
	}
	docs, err := manifest.Parse(f.Content, s.ManifestLimits())
	if err != nil {
		return nil, ManifestErrors(name, err)
	}
	f.Vetted = true
	return docs, nil
}

// ManifestErrors gives what Parse found its file.
func ManifestErrors(name string, err error) wire.Errors {
	var found manifest.Errors
	errors.As(err, &found)
	out := make(wire.Errors, len(found))
	for i, e := range found {
		out[i] = &wire.ManifestError{File: name, Line: e.Line, Reason: e.Reason}
	}
	return out
}
