// Package sandbox takes away from the calling process what a render never needs: sockets, programs, files, core dumps.
package sandbox

// Error says which lock could not be put on.
type Error struct {
	Step string
	Err  error
}

func (e *Error) Error() string { return "sandbox: " + e.Step + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }
