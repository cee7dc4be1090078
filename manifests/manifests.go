// Package manifests holds the install of the reconciler as a tree of kustomize files.
package manifests

import "embed"

// Files is the tree: base, components and what an environment needs.
//
//go:embed base components environment
var Files embed.FS
