package render

import (
	"bytes"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/nexus-platform/reconciler/render/internal/manifest"
)

// source is the tree as the child knows it: each path is asked for once, checked before anybody parses it, and decrypted.
type source struct {
	up      *upstream
	keys    []age.Identity
	limits  Limits
	files   map[string]*file
	secrets secrets
	met     Errors // what kustomize met that the scan had not foreseen
}

// file is one path of the tree.
type file struct {
	kind    fileKind
	real    string // of a directory: its path, free of links
	content []byte // decrypted
	err     error  // why it cannot be read
	vetted  bool   // Parse has seen the content
}

func newSource(up *upstream, keys []age.Identity, limits Limits) *source {
	return &source{up: up, keys: keys, limits: limits, files: make(map[string]*file)}
}

func (s *source) manifestLimits() manifest.Limits {
	return manifest.Limits{Elements: s.limits.Elements, Aliases: s.limits.Aliases, Nesting: s.limits.Nesting}
}

// get reads a path, a name as fs.ValidPath wants it.
func (s *source) get(name string) *file {
	if f, ok := s.files[name]; ok {
		return f
	}
	f := s.fetch(name)
	s.files[name] = f
	return f
}

func (s *source) fetch(name string) *file {
	a, content, err := s.up.ask(name)
	switch {
	case err != nil:
		return &file{err: err}
	case a.Limit != nil:
		return &file{err: a.Limit}
	case a.Failed:
		return &file{err: &FileError{File: name, Reason: "cannot be read"}}
	case a.Kind != regular:
		return &file{kind: a.Kind, real: a.Real}
	}
	plain, err := s.decrypt(name, content)
	if err != nil {
		return &file{kind: regular, err: err}
	}
	return &file{kind: regular, content: plain}
}

// documents parses a file that is there. Its error is an Errors.
func (s *source) documents(name string) ([]manifest.Document, error) {
	f := s.get(name)
	if f.err != nil {
		return nil, Errors{f.err}
	}
	docs, err := manifest.Parse(f.content, s.manifestLimits())
	if err != nil {
		return nil, manifestErrors(name, err)
	}
	f.vetted = true
	return docs, nil
}

// manifestErrors gives what Parse found its file.
func manifestErrors(name string, err error) Errors {
	var found manifest.Errors
	errors.As(err, &found)
	out := make(Errors, len(found))
	for i, e := range found {
		out[i] = &ManifestError{File: name, Line: e.Line, Reason: e.Reason}
	}
	return out
}

// The methods below make source the filesys.FileSystem that kustomize builds from. It sees the repository as the
// root of a file system; what it never needs for a build is refused.

// name turns a path of kustomize into one of the repository.
func name(p string) string {
	clean := strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(p)), "/")
	if clean == "" {
		return "."
	}
	return clean
}

// ReadFile reads a file. One that the scan did not foresee is vetted here, as kustomize might parse it.
func (s *source) ReadFile(p string) ([]byte, error) {
	n := name(p)
	f := s.get(n)
	switch {
	case f.err != nil:
		s.met = append(s.met, f.err)
		return nil, f.err
	case f.kind == absent:
		return nil, &fs.PathError{Op: "read", Path: n, Err: fs.ErrNotExist}
	case f.kind == directory:
		return nil, &fs.PathError{Op: "read", Path: n, Err: errIsDirectory}
	}
	if !f.vetted && looksLikeYAML(n) {
		if _, err := s.documents(n); err != nil {
			s.met = append(s.met, err.(Errors)...)
			return nil, err
		}
	}
	return bytes.Clone(f.content), nil
}

var errIsDirectory = errors.New("is a directory")

func looksLikeYAML(n string) bool {
	switch path.Ext(n) {
	case ".yaml", ".yml", ".json", "":
		return true
	}
	return false
}

// CleanedAbs splits a path into its directory, free of links, and the name of a file in it.
func (s *source) CleanedAbs(p string) (filesys.ConfirmedDir, string, error) {
	n := name(p)
	f := s.get(n)
	switch {
	case f.err != nil:
		return "", "", f.err
	case f.kind == absent:
		return "", "", &fs.PathError{Op: "open", Path: n, Err: fs.ErrNotExist}
	case f.kind == directory:
		return filesys.ConfirmedDir(path.Join("/", f.real)), "", nil
	}
	return filesys.ConfirmedDir(path.Join("/", s.get(path.Dir(n)).real)), path.Base(n), nil
}

// IsDir reports whether a path is a directory.
func (s *source) IsDir(p string) bool { return s.get(name(p)).kind == directory }

// Exists reports whether anything is at a path.
func (s *source) Exists(p string) bool { return s.get(name(p)).kind != absent }

var errNoBuild = errors.New("a build neither writes nor lists files")

func (s *source) Create(string) (filesys.File, error)  { return nil, errNoBuild }
func (s *source) Mkdir(string) error                   { return errNoBuild }
func (s *source) MkdirAll(string) error                { return errNoBuild }
func (s *source) RemoveAll(string) error               { return errNoBuild }
func (s *source) Open(string) (filesys.File, error)    { return nil, errNoBuild }
func (s *source) ReadDir(string) ([]string, error)     { return nil, errNoBuild }
func (s *source) Glob(string) ([]string, error)        { return nil, errNoBuild }
func (s *source) WriteFile(string, []byte) error       { return errNoBuild }
func (s *source) Walk(string, filepath.WalkFunc) error { return errNoBuild }
