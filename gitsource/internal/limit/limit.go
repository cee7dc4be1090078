// Package limit says what one repository may cost.
package limit

import (
	"fmt"
	"time"
)

// Limits bound what one repository may cost. A zero field means its default, so
// that no limit can be switched off by forgetting it.
type Limits struct {
	FetchBytes  int64 // bytes of one answer of the server, packed; default 1 GiB
	ObjectBytes int64 // one object of a pack, unpacked, whether the tree needs it or not; default 64 MiB
	FileBytes   int64 // one file that is read; default 16 MiB
	TreeBytes   int64 // all files that are read of one commit; default 256 MiB
	Files       int   // entries of all directories that are read of one commit; default 50,000
	Depth       int   // levels of directories; default 100
	Refs        int   // refs that a server may advertise; default 250,000
	Objects     int   // objects of one pack; default 5,000,000

	// Phase bounds each of: connecting, the list of refs, the wait for a pack, and every further
	// 32 KiB of it; default 30 s. Total bounds one call; default 5 min.
	Phase, Total time.Duration
}

// Default are the limits of a zero Limits.
func Default() Limits {
	return Limits{
		FetchBytes: 1 << 30, ObjectBytes: 64 << 20, FileBytes: 16 << 20, TreeBytes: 256 << 20,
		Files: 50_000, Depth: 100, Refs: 250_000, Objects: 5_000_000,
		Phase: 30 * time.Second, Total: 5 * time.Minute,
	}
}

// OrDefault fills the zero fields.
func (l Limits) OrDefault() Limits {
	d := Default()
	fill(&l.FetchBytes, d.FetchBytes)
	fill(&l.ObjectBytes, d.ObjectBytes)
	fill(&l.FileBytes, d.FileBytes)
	fill(&l.TreeBytes, d.TreeBytes)
	fill(&l.Files, d.Files)
	fill(&l.Depth, d.Depth)
	fill(&l.Refs, d.Refs)
	fill(&l.Objects, d.Objects)
	fill(&l.Phase, d.Phase)
	fill(&l.Total, d.Total)
	return l
}

func fill[T int | int64 | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// Error says what was larger than a limit allows. Path is a file, or what else was measured.
type Error struct {
	Path  string
	Limit string // the name of the field of Limits
	Max   int64
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: is over the limit %s of %d", e.Path, e.Limit, e.Max)
}
