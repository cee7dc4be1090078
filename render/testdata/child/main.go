// Command child is a render process without the race detector, for tests that measure.
package main

import (
	"os"

	"github.com/nexus-platform/reconciler/render"
)

func main() { os.Exit(render.ChildMain(os.Stdin, os.Stdout)) }
