package render

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/render/internal/sandbox"
)

// maxStack ends a recursion without end long before it fills the memory.
const maxStack = 128 << 20

// ChildMain is the body of the render process: it locks itself in, takes one job from its parent, and answers
// with the objects. The program calls it before anything else when its first argument is ChildVerb, and exits with what
// it returns. It changes globals of the process (environment, standard output, the default HTTP transport).
func ChildMain(stdin io.Reader, stdout io.Writer) int {
	os.Clearenv()
	os.Stdout = os.Stderr // libraries that print must not speak to the parent
	http.DefaultTransport = noNetwork{}
	debug.SetMaxStack(maxStack)
	if err := sandbox.Enter(); err != nil {
		writeFrame(stdout, header{Op: opReady, Path: err.Error()}, nil) //nolint:errcheck // the exit code says the rest
		return 1
	}
	if err := writeFrame(stdout, header{Op: opReady}, nil); err != nil {
		return 1
	}
	h, _, err := readFrame(stdin, 0)
	if err != nil || h.Job == nil {
		return 1
	}
	up := listen(stdin, stdout, h.Job.Limits)
	debug.SetMemoryLimit(h.Job.Limits.Memory / 10 * 9)
	objects, err := perform(h.Job, up)
	if err == nil {
		err = up.send(objects, h.Job.Limits)
	}
	if err != nil {
		up.fail(err)
	} else if writeFrame(stdout, header{Op: opDone}, nil) != nil {
		return 1
	}
	<-up.gone // the parent looks at this process's memory once more before it lets go
	return 0
}

// noNetwork is the second lock on what kustomize would fetch; the first is the reference scan, the third, where there is one, the sandbox.
type noNetwork struct{}

func (noNetwork) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("the network is not reachable while rendering")
}

// rendered is one object on its way to the parent.
type rendered struct {
	json   []byte
	origin object.Origin
}

// perform does the job. A panic of a library is an error, without the value that it carries: it may quote a secret.
func perform(j *job, up *upstream) (objects []rendered, err error) {
	defer func() {
		if v := recover(); v != nil {
			why := "kustomize panicked"
			if bug, ok := v.(runtime.Error); ok {
				why += ": " + bug.Error()
			}
			err = &CrashError{Reason: "caught a fault of kustomize in " + j.Path + ": " + why}
		}
	}()
	keys, err := parseKeys(j.AgeKeys)
	if err != nil {
		return nil, err
	}
	files := newSource(up, keys, j.Limits)
	s := newScan(files, j.Limits)
	if err := s.overlay(j.Path); err != nil {
		return nil, err
	}
	return build(files, j.Path, &s.origins)
}

// upstream is the parent, seen from the child.
type upstream struct {
	out     io.Writer
	answers chan frame
	gone    chan struct{} // closed when the parent has let go, or is no more
	mu      sync.Mutex
}

type frame struct {
	header header
	body   []byte
}

// listen reads what the parent says until it hangs up. A parent that dies in the middle of a job leaves
// nobody to work for, so the process ends.
func listen(in io.Reader, out io.Writer, limits Limits) *upstream {
	up := &upstream{out: out, answers: make(chan frame), gone: make(chan struct{})}
	go func() {
		defer close(up.gone)
		for {
			h, body, err := readFrame(in, limits.FileBytes)
			if err != nil {
				return
			}
			up.answers <- frame{h, body}
		}
	}()
	return up
}

// errHungUp ends a job whose parent is gone.
var errHungUp = errors.New("the parent hung up")

// ask reads a path of the tree.
func (u *upstream) ask(name string) (answer, []byte, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := writeFrame(u.out, header{Op: opRead, Path: name}, nil); err != nil {
		return answer{}, nil, errHungUp
	}
	select {
	case f := <-u.answers:
		if f.header.Answer == nil {
			return answer{}, nil, errHungUp
		}
		return *f.header.Answer, f.body, nil
	case <-u.gone:
		return answer{}, nil, errHungUp
	}
}

// send hands over the objects.
func (u *upstream) send(objects []rendered, limits Limits) error {
	var sum int64
	for _, o := range objects {
		if sum += int64(len(o.json)); sum > limits.SetBytes {
			return &LimitError{Limit: "SetBytes", Max: limits.SetBytes, What: "renders more than " + bytesText(limits.SetBytes)}
		}
	}
	for _, o := range objects {
		if err := writeFrame(u.out, header{Op: opObject, Origin: &o.origin}, o.json); err != nil {
			return errHungUp
		}
	}
	return nil
}

// fail hands over what is wrong.
func (u *upstream) fail(err error) {
	all, ok := err.(Errors)
	if !ok {
		all = Errors{err}
	}
	h := header{Op: opFailed}
	for i, e := range all {
		if i == maxProblems {
			h.Problems = append(h.Problems, problemOf(&KustomizationError{Reason: fmt.Sprintf("and %d more errors", len(all)-i)}))
			break
		}
		h.Problems = append(h.Problems, problemOf(e))
	}
	writeFrame(u.out, h, nil) //nolint:errcheck // a parent that is gone needs no reason
}
