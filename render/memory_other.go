//go:build !linux

package render

// residentBytes is unknown here; Go's own memory limit in the child is all there is.
func residentBytes(int) (now, peak int64) { return 0, 0 }
