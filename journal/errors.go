package journal

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// ErrConflict says that somebody else wrote the head first: read it again.
var ErrConflict = errors.New("the head was written by somebody else")

// UnknownOutcomeError says that a write of the head was not answered: it may have happened. Read the head again.
type UnknownOutcomeError struct{ Cause error }

func (e *UnknownOutcomeError) Error() string {
	return "the write of the head was not answered: " + e.Cause.Error()
}

func (e *UnknownOutcomeError) Unwrap() error { return e.Cause }

// UnavailableError says that the API server did not do what was asked, for no fault of ours: try again.
type UnavailableError struct{ Cause error }

func (e *UnavailableError) Error() string {
	return "the journal cannot be reached: " + e.Cause.Error()
}

func (e *UnavailableError) Unwrap() error { return e.Cause }

// NewerError says that a newer program wrote the head.
type NewerError struct {
	Secret  string
	Version int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("the head in Secret %s has version %d, and this program knows versions up to %d: run the newer program again", e.Secret, e.Version, Version)
}

// LostHeadError says that bundles exist but the head that names them does not, and cannot be rebuilt.
type LostHeadError struct {
	Secret  string
	Release int64 // the newest that was planned; 0: none is known
}

func (e *LostHeadError) Error() string {
	if e.Release == 0 {
		return fmt.Sprintf("Secret %s is missing, and what is left of the journal does not tell what it said", e.Secret)
	}
	return fmt.Sprintf("Secret %s is missing, and release %d may have been open", e.Secret, e.Release)
}

// MissingChunkError says that part of a bundle is gone.
type MissingChunkError struct{ Secret string }

func (e *MissingChunkError) Error() string {
	return "Secret " + e.Secret + ", a part of the journal, is missing"
}

// CorruptError says that part of the journal does not hold what its name says.
type CorruptError struct {
	Secret string
	Cause  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("Secret %s, a part of the journal, is damaged: %v", e.Secret, e.Cause)
}

func (e *CorruptError) Unwrap() error { return e.Cause }

// TooLargeError says that the head would grow over its bound.
type TooLargeError struct{ Bytes int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the head would have %d bytes, more than %d", e.Bytes, maxHead)
}

// classify sorts the API server's answers. What it refuses for a reason (403, 422) stays as it is.
func classify(err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsTooManyRequests(err),
		apierrors.IsServiceUnavailable(err), apierrors.IsInternalError(err), apierrors.IsUnexpectedServerError(err):
		return &UnavailableError{Cause: err}
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return err
	}
	return &UnavailableError{Cause: err} // the connection
}
