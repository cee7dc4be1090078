package journal

import (
	"errors"
	"fmt"
	"slices"
)

// sound refuses a head that no transition makes: a state that nobody knows, an open release where
// none may be, or one that is undone for no reason.
func (h Head) sound() error {
	_, known := steps[h.State]
	switch {
	case !known:
		return fmt.Errorf("its state %q is none", h.State)
	case (h.State != Idle) != (h.Release != nil):
		return fmt.Errorf("a head that is %s must have an open release, and no other", h.State)
	case h.Release == nil:
		return nil
	case h.Release.Number != h.Number:
		return fmt.Errorf("the open release has number %d, the newest has %d", h.Release.Number, h.Number)
	case (h.State == Aborting) != (h.Release.Failure != nil):
		return fmt.Errorf("a release that is %s must have a failure, and no other", Aborting)
	}
	return nil
}

// steps are the ways that the protocol has.
var steps = map[State][]State{
	Idle:      {Idle, Prepared},
	Prepared:  {Prepared, Committed, Aborting},
	Committed: {Committed, Idle},
	Aborting:  {Aborting, Idle},
}

// maxRequest bounds the id of a request, which is kept as it is: bytes.
const maxRequest = 256

// Legal refuses a step that the protocol has not: it would be a mistake of this program.
func Legal(from, to Head) error {
	if !slices.Contains(steps[from.State], to.State) {
		return fmt.Errorf("the head may not go from %s to %s", from.State, to.State)
	}
	if err := to.sound(); err != nil {
		return err
	}
	opened := from.Release == nil && to.Release != nil
	switch {
	case to.Epoch <= from.Epoch:
		return fmt.Errorf("the epoch of the head may not go from %d to %d", from.Epoch, to.Epoch)
	case to.Environment != from.Environment:
		return errors.New("the head may not change its environment")
	case from.Release != nil && to.Release != nil && from.Release.Number != to.Release.Number:
		return errors.New("a release may not replace an open one")
	case opened && to.Number <= from.Number:
		return fmt.Errorf("release number %d was used already", to.Number)
	case !opened && to.Number != from.Number && from.Epoch > 0:
		return fmt.Errorf("the newest release has number %d, not %d", from.Number, to.Number)
	case to.Good.number() != from.Good.number() && (from.State != Committed || to.State != Idle || to.Good.number() != from.Number):
		return errors.New("only a release that was decided may become the last good one")
	case len(to.Request) > maxRequest:
		return fmt.Errorf("the id of the request has %d bytes, more than %d", len(to.Request), maxRequest)
	}
	return nil
}

func (m *Mark) number() int64 {
	if m == nil {
		return 0
	}
	return m.Release
}
