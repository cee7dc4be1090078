// Package examples holds a config repository to start from.
package examples

import "embed"

// Platform is the config repository, under nexus-platform.
//
//go:embed nexus-platform
var Platform embed.FS
