package wire

import (
	"errors"
	"fmt"
	"strings"
)

// Errors are all that is wrong with a commit's files, found at once. Each is one of the types of this package.
type Errors []error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Flat writes out the Errors in e.
func (e Errors) Flat() Errors {
	var flat Errors
	for _, err := range e {
		var inner Errors
		if errors.As(err, &inner) {
			flat = append(flat, inner.Flat()...)
		} else {
			flat = append(flat, err)
		}
	}
	return flat
}

// Unwrap lets errors.As look at each.
func (e Errors) Unwrap() []error { return e }

// ReferenceError says that a kustomization refers to something that is not a file of its repository.
type ReferenceError struct {
	File      string // the kustomization, or the plugin's configuration
	Field     string // such as resources[2] or patches[0].path
	Reference string // as it is written
	Why       string
}

func (e *ReferenceError) Error() string {
	return fmt.Sprintf("%s: %s: %.300q %s", e.File, e.Field, e.Reference, e.Why)
}

// PluginError says that a file wants a program to be run, or a chart to be fetched: helm, a function or an executable.
type PluginError struct {
	File   string
	Plugin string // its kind, or "helm"
	Why    string
}

func (e *PluginError) Error() string { return fmt.Sprintf("%s: %s %s", e.File, e.Plugin, e.Why) }

// KustomizationError says that a kustomization is not one that can be built.
type KustomizationError struct {
	File   string // the file, or its directory
	Reason string
}

func (e *KustomizationError) Error() string { return e.File + ": " + e.Reason }

// MissingError says that the overlay is not in the commit.
type MissingError struct{ Path string }

func (e *MissingError) Error() string {
	return e.Path + ": app path missing: the commit has no such directory; nothing is pruned for it"
}

// ManifestError says that a file is not YAML that can be trusted: broken, ambiguous, without a kind or name, or a bomb.
type ManifestError struct {
	File   string
	Line   int // from 1; 0 if unknown
	Reason string
}

func (e *ManifestError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason)
	}
	return e.File + ": " + e.Reason
}

// FileError says that a file cannot be read: it is a link that leaves the tree, a submodule, an LFS pointer, or the mirror is damaged.
type FileError struct {
	File   string
	Reason string // set where Err is not
	Err    error  // of the Tree, as it is
}

func (e *FileError) Error() string {
	if e.Err == nil {
		return e.File + ": " + e.Reason
	}
	if text := e.Err.Error(); strings.Contains(text, e.File) {
		return text
	}
	return e.File + ": " + e.Err.Error()
}
func (e *FileError) Unwrap() error { return e.Err }

// LimitError says that a render asked for more than Limits grant.
type LimitError struct {
	File  string // what crossed the limit, if it was one file
	Limit string // the field of Limits
	Max   int64  // its value; Memory in bytes, Time in nanoseconds
	What  string // the limit in words
}

func (e *LimitError) Error() string {
	text := fmt.Sprintf("%s (limit %s)", e.What, e.Limit)
	if e.File != "" {
		return e.File + ": " + text
	}
	return text
}

// DecryptError says that a SOPS file cannot be decrypted. Recipients are the public keys that it was encrypted for.
type DecryptError struct {
	File       string
	Recipients []string
	Reason     string
}

func (e *DecryptError) Error() string {
	text := e.File + ": decrypt: " + e.Reason
	if len(e.Recipients) > 0 {
		text += " (encrypted for " + strings.Join(e.Recipients, ", ") + ")"
	}
	return text
}

// ObjectError says that one rendered object cannot be used.
type ObjectError struct {
	Object string // kind/namespace/name
	From   string // file:line
	Reason string
}

func (e *ObjectError) Error() string {
	if e.From != "" {
		return e.From + ": " + e.Object + ": " + e.Reason
	}
	return e.Object + ": " + e.Reason
}

// BuildError is what kustomize had against a kustomization that is otherwise sound, without any value of a secret.
type BuildError struct {
	Path   string // directory of the kustomization
	Reason string
}

func (e *BuildError) Error() string { return e.Path + ": " + e.Reason }

// CrashError says that the render process ended without an answer, or that kustomize panicked in it.
type CrashError struct{ Reason string }

func (e *CrashError) Error() string { return "the render process " + e.Reason }

// Problem carries one error from the child to its parent.
type Problem struct {
	Reference     *ReferenceError     `json:",omitempty"`
	Plugin        *PluginError        `json:",omitempty"`
	Kustomization *KustomizationError `json:",omitempty"`
	Missing       *MissingError       `json:",omitempty"`
	Manifest      *ManifestError      `json:",omitempty"`
	File          *FileError          `json:",omitempty"`
	Limit         *LimitError         `json:",omitempty"`
	Decrypt       *DecryptError       `json:",omitempty"`
	Object        *ObjectError        `json:",omitempty"`
	Build         *BuildError         `json:",omitempty"`
	Crash         *CrashError         `json:",omitempty"`
}

// ProblemOf wraps an error of this package; anything else becomes a CrashError without its text, which could quote a file.
func ProblemOf(err error) Problem {
	switch e := err.(type) { //nolint:errorlint // what is wrapped is not ours, and its text may quote a file
	case *ReferenceError:
		return Problem{Reference: e}
	case *PluginError:
		return Problem{Plugin: e}
	case *KustomizationError:
		return Problem{Kustomization: e}
	case *MissingError:
		return Problem{Missing: e}
	case *ManifestError:
		return Problem{Manifest: e}
	case *FileError:
		return Problem{File: &FileError{File: e.File, Reason: e.Reason}}
	case *LimitError:
		return Problem{Limit: e}
	case *DecryptError:
		return Problem{Decrypt: e}
	case *ObjectError:
		return Problem{Object: e}
	case *BuildError:
		return Problem{Build: e}
	case *CrashError:
		return Problem{Crash: e}
	}
	return Problem{Crash: &CrashError{Reason: fmt.Sprintf("met an unforeseen %T", err)}}
}

// Err is the error that ProblemOf was given. failures are the Tree's own errors by path.
func (p Problem) Err(failures map[string]error) error {
	switch {
	case p.Reference != nil:
		return p.Reference
	case p.Plugin != nil:
		return p.Plugin
	case p.Kustomization != nil:
		return p.Kustomization
	case p.Missing != nil:
		return p.Missing
	case p.Manifest != nil:
		return p.Manifest
	case p.File != nil:
		p.File.Err = failures[p.File.File]
		return p.File
	case p.Limit != nil:
		return p.Limit
	case p.Decrypt != nil:
		return p.Decrypt
	case p.Object != nil:
		return p.Object
	case p.Build != nil:
		return p.Build
	case p.Crash != nil:
		return p.Crash
	}
	return &CrashError{Reason: "sent an error that says nothing"}
}
