package wire

import (
	"fmt"
	"time"
)

// Limits bound what one render may cost. A zero field means its default, so that no
// limit can be switched off by forgetting it.
type Limits struct {
	FileBytes int64 // one file; default 10 MiB
	TreeBytes int64 // all files that are read; default 64 MiB
	Files     int   // files that are read or looked for; default 20,000
	SetBytes  int64 // the rendered objects as JSON; default 64 MiB
	Objects   int   // rendered objects; default 10,000

	Kustomizations int // kustomizations, each as often as it is reached; default 1,000
	Depth          int // kustomizations inside each other; default 50
	Elements       int // scalars, mappings and lists of one YAML file, aliases written out; default 1,000,000
	Aliases        int // of one YAML file; default 10,000
	Nesting        int // levels of one YAML file, aliases written out; default 200

	Memory int64         // resident bytes of the render process; default 1 GiB
	Time   time.Duration // of the render process; default 2 min
}

// DefaultLimits are the limits of a zero Limits.
func DefaultLimits() Limits {
	return Limits{
		FileBytes: 10 << 20, TreeBytes: 64 << 20, Files: 20_000, SetBytes: 64 << 20, Objects: 10_000,
		Kustomizations: 1_000, Depth: 50, Elements: 1_000_000, Aliases: 10_000, Nesting: 200,
		Memory: 1 << 30, Time: 2 * time.Minute,
	}
}

// OrDefault fills the zero fields.
func (l Limits) OrDefault() Limits {
	d := DefaultLimits()
	fill(&l.FileBytes, d.FileBytes)
	fill(&l.TreeBytes, d.TreeBytes)
	fill(&l.Files, d.Files)
	fill(&l.SetBytes, d.SetBytes)
	fill(&l.Objects, d.Objects)
	fill(&l.Kustomizations, d.Kustomizations)
	fill(&l.Depth, d.Depth)
	fill(&l.Elements, d.Elements)
	fill(&l.Aliases, d.Aliases)
	fill(&l.Nesting, d.Nesting)
	fill(&l.Memory, d.Memory)
	fill(&l.Time, d.Time)
	return l
}

func fill[T int | int64 | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// TooManyObjects is the error of a set that is too large.
func TooManyObjects(limits Limits) *LimitError {
	return &LimitError{Limit: "Objects", Max: int64(limits.Objects), What: fmt.Sprintf("renders more than %d objects", limits.Objects)}
}

// BytesText writes a limit as people do.
func BytesText(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
