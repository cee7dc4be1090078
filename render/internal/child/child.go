// Package child is the render process: it locks itself in, takes one job, has kustomize build it, and answers with the objects.
package child

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
	"github.com/nexus-platform/reconciler/render/internal/scan"
	"github.com/nexus-platform/reconciler/render/internal/source"
	"github.com/nexus-platform/reconciler/render/internal/wire"
)

// maxStack ends a recursion without end long before it fills the memory.
const maxStack = 128 << 20

// Main is the whole life of the process; it returns the exit code.
func Main(stdin io.Reader, stdout io.Writer) int {
	os.Clearenv()
	os.Stdout = os.Stderr // libraries that print must not speak to the parent
	http.DefaultTransport = noNetwork{}
	debug.SetMaxStack(maxStack)
	if err := sandbox.Enter(); err != nil {
		wire.Write(stdout, wire.Header{Op: wire.OpReady, Path: err.Error()}, nil) //nolint:errcheck // the exit code says the rest
		return 1
	}
	if err := wire.Write(stdout, wire.Header{Op: wire.OpReady}, nil); err != nil {
		return 1
	}
	h, _, err := wire.Read(stdin, 0)
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
	} else if wire.Write(stdout, wire.Header{Op: wire.OpDone}, nil) != nil {
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
func perform(j *wire.Job, up *upstream) (objects []rendered, err error) {
	defer func() {
		if v := recover(); v != nil {
			why := "kustomize panicked"
			if bug, ok := v.(runtime.Error); ok {
				why += ": " + bug.Error()
			}
			err = &wire.CrashError{Reason: "caught a fault of kustomize in " + j.Path + ": " + why}
		}
	}()
	keys, err := source.ParseKeys(j.AgeKeys)
	if err != nil {
		return nil, err
	}
	tree := source.New(up, keys, j.Limits)
	walk := scan.New(tree, j.Limits)
	if err := walk.Overlay(j.Path); err != nil {
		return nil, err
	}
	b := builder{tree: tree, dir: j.Path, limits: j.Limits, origins: &walk.Origins, parts: &walk.Parts}
	return b.build()
}

// upstream is the parent, seen from the child.
type upstream struct {
	out     io.Writer
	answers chan frame
	gone    chan struct{} // closed when the parent has let go, or is no more
	mu      sync.Mutex
}

type frame struct {
	header wire.Header
	body   []byte
}

// listen reads what the parent says until it hangs up. A parent that dies in the middle of a job leaves
// nobody to work for, so the process ends.
func listen(in io.Reader, out io.Writer, limits wire.Limits) *upstream {
	up := &upstream{out: out, answers: make(chan frame), gone: make(chan struct{})}
	go func() {
		defer close(up.gone)
		for {
			h, body, err := wire.Read(in, limits.FileBytes)
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

// Ask reads a path of the tree.
func (u *upstream) Ask(name string) (wire.Answer, []byte, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := wire.Write(u.out, wire.Header{Op: wire.OpRead, Path: name}, nil); err != nil {
		return wire.Answer{}, nil, errHungUp
	}
	select {
	case f := <-u.answers:
		if f.header.Answer == nil {
			return wire.Answer{}, nil, errHungUp
		}
		return *f.header.Answer, f.body, nil
	case <-u.gone:
		return wire.Answer{}, nil, errHungUp
	}
}

// send hands over the objects.
func (u *upstream) send(objects []rendered, limits wire.Limits) error {
	var sum int64
	for _, o := range objects {
		if sum += int64(len(o.json)); sum > limits.SetBytes {
			return &wire.LimitError{Limit: "SetBytes", Max: limits.SetBytes, What: "renders more than " + wire.BytesText(limits.SetBytes)}
		}
	}
	for _, o := range objects {
		if err := wire.Write(u.out, wire.Header{Op: wire.OpObject, Origin: &o.origin}, o.json); err != nil {
			return errHungUp
		}
	}
	return nil
}

// fail hands over what is wrong.
func (u *upstream) fail(err error) {
	var all wire.Errors
	if !errors.As(err, &all) {
		all = wire.Errors{err}
	}
	h := wire.Header{Op: wire.OpFailed}
	for i, e := range all.Flat() {
		if i == wire.MaxProblems {
			h.Problems = append(h.Problems, wire.ProblemOf(&wire.KustomizationError{Reason: fmt.Sprintf("and %d more errors", len(all)-i)}))
			break
		}
		h.Problems = append(h.Problems, wire.ProblemOf(e))
	}
	wire.Write(u.out, h, nil) //nolint:errcheck // a parent that is gone needs no reason
}
