//go:build race

package render

// raced says that this binary carries the race detector.
const raced = true
