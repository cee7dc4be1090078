package child

import (
	"bytes"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/nexus-platform/reconciler/render/internal/source"
	"github.com/nexus-platform/reconciler/render/internal/wire"
)

// files is the filesys.FileSystem that kustomize builds from: it sees the repository as the root of a file
// system. What kustomize never needs for a build is refused.
type files struct {
	*source.Source
	met     wire.Errors // what kustomize met that the scan had not foreseen
	instead map[string][]byte
}

// name turns a path of kustomize into one of the repository.
func name(p string) string {
	clean := strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(p)), "/")
	if clean == "" {
		return "."
	}
	return clean
}

// ReadFile reads a file. One that the scan did not foresee is vetted here, as kustomize might parse it.
func (s *files) ReadFile(p string) ([]byte, error) {
	n := name(p)
	if content, ok := s.instead[n]; ok {
		return bytes.Clone(content), nil
	}
	f := s.Get(n)
	switch {
	case f.Err != nil:
		s.met = append(s.met, f.Err)
		return nil, f.Err
	case f.Kind == wire.Absent:
		return nil, &fs.PathError{Op: "read", Path: n, Err: fs.ErrNotExist}
	case f.Kind == wire.Directory:
		return nil, &fs.PathError{Op: "read", Path: n, Err: errIsDirectory}
	}
	if !f.Vetted && looksLikeYAML(n) {
		if _, err := s.Documents(n); err != nil {
			s.met = append(s.met, err)
			return nil, err
		}
	}
	return bytes.Clone(f.Content), nil
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
func (s *files) CleanedAbs(p string) (filesys.ConfirmedDir, string, error) {
	n := name(p)
	f := s.Get(n)
	switch {
	case f.Err != nil:
		return "", "", f.Err
	case f.Kind == wire.Absent:
		return "", "", &fs.PathError{Op: "open", Path: n, Err: fs.ErrNotExist}
	case f.Kind == wire.Directory:
		return filesys.ConfirmedDir(path.Join("/", f.Real)), "", nil
	}
	return filesys.ConfirmedDir(path.Join("/", s.Get(path.Dir(n)).Real)), path.Base(n), nil
}

// IsDir reports whether a path is a directory.
func (s *files) IsDir(p string) bool { return s.Get(name(p)).Kind == wire.Directory }

// Exists reports whether anything is at a path.
func (s *files) Exists(p string) bool { return s.Get(name(p)).Kind != wire.Absent }

var errNoBuild = errors.New("a build neither writes nor lists files")

func (s *files) Create(string) (filesys.File, error)  { return nil, errNoBuild }
func (s *files) Mkdir(string) error                   { return errNoBuild }
func (s *files) MkdirAll(string) error                { return errNoBuild }
func (s *files) RemoveAll(string) error               { return errNoBuild }
func (s *files) Open(string) (filesys.File, error)    { return nil, errNoBuild }
func (s *files) ReadDir(string) ([]string, error)     { return nil, errNoBuild }
func (s *files) Glob(string) ([]string, error)        { return nil, errNoBuild }
func (s *files) WriteFile(string, []byte) error       { return errNoBuild }
func (s *files) Walk(string, filepath.WalkFunc) error { return errNoBuild }
