//go:build !failpoints

package failpoint

// Here marks a step boundary.
func Here(Name) {}
