package render

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/nexus-platform/reconciler/object"
)

// ChildVerb is the hidden first argument under which this program must call ChildMain.
const ChildVerb = "__render"

// sampleEvery is how often a child's memory is looked at.
const sampleEvery = 50 * time.Millisecond

// child is one render process, seen from its parent.
type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *firstBytes
	peak   atomic.Int64               // resident bytes
	limit  atomic.Pointer[LimitError] // that it was killed for
}

// start starts a child and waits until it is locked in. It has no environment, and the root directory as its own.
func (r *Renderer) start() (*child, error) {
	command := r.Command
	if len(command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program to start a render process: %w", err)
		}
		command = []string{self, ChildVerb}
	}
	c := &child{cmd: exec.Command(command[0], command[1:]...), stderr: &firstBytes{}}
	c.cmd.Env, c.cmd.Dir, c.cmd.Stderr = []string{}, "/", c.stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a render process: %w", err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a render process: %w", err)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a render process: %w", err)
	}
	c.in, c.out = in, bufio.NewReaderSize(out, 64<<10)
	return c, nil
}

// ready waits for the child's first word: that it is locked in.
func (c *child) ready() error {
	h, _, err := readFrame(c.out, 0)
	switch {
	case err != nil || h.Op != opReady:
		return &SandboxError{Reason: "the render process did not come up" + c.stderr.fatal()}
	case h.Path != "":
		return &SandboxError{Reason: h.Path}
	}
	return nil
}

// stop ends the child and waits for it.
func (c *child) stop() {
	c.in.Close()
	c.cmd.Process.Kill() //nolint:errcheck // it may have ended
	c.cmd.Wait()         //nolint:errcheck // how it ended is known from what it said
}

func (r *Renderer) check() error {
	c, err := r.start()
	if err != nil {
		return err
	}
	defer time.AfterFunc(10*time.Second, func() { c.cmd.Process.Kill() }).Stop() //nolint:errcheck // it may have ended
	defer c.stop()
	return c.ready()
}

// run has a child do a job, and answers its questions. It returns the objects and the child's peak of resident bytes.
func (r *Renderer) run(ctx context.Context, j job, files *served) ([]object.Object, int64, error) {
	c, err := r.start()
	if err != nil {
		return nil, 0, err
	}
	answered, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		c.watch(ctx, answered, j.Limits)
	}()
	objects, err := c.serve(j, files)
	close(answered)
	<-watched // before stop has waited for it, the pid is nobody else's
	c.sample()
	c.stop()
	if err != nil && ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	if limit := c.limit.Load(); err != nil && limit != nil {
		return nil, 0, limit
	}
	return objects, c.peak.Load(), err
}

// watch kills the child where it takes too much memory or time, or where nobody waits for it any more.
func (c *child) watch(ctx context.Context, answered <-chan struct{}, limits Limits) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	deadline := time.NewTimer(limits.Time)
	defer deadline.Stop()
	for {
		select {
		case <-answered:
			return
		case <-ctx.Done():
			c.kill(nil)
			return
		case <-deadline.C:
			c.kill(&LimitError{Limit: "Time", Max: int64(limits.Time), What: fmt.Sprintf("takes longer than %s to render", limits.Time)})
			return
		case <-tick.C:
			if c.sample() > limits.Memory {
				c.kill(&LimitError{Limit: "Memory", Max: limits.Memory, What: "takes more than " + bytesText(limits.Memory) + " of memory to render"})
				return
			}
		}
	}
}

// kill makes serve return; why is nil where the caller knows.
func (c *child) kill(why *LimitError) {
	c.limit.Store(why)
	c.cmd.Process.Kill() //nolint:errcheck // it may have ended
}

// sample looks at the child's memory now, and remembers its peak.
func (c *child) sample() int64 {
	now, peak := residentBytes(c.cmd.Process.Pid)
	c.peak.Store(max(c.peak.Load(), now, peak))
	return now
}

// serve gives the child its job, answers what it asks, and takes its objects.
func (c *child) serve(j job, files *served) ([]object.Object, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	if err := writeFrame(c.in, header{Op: opJob, Job: &j}, nil); err != nil {
		return nil, c.crashed()
	}
	var objects []object.Object
	room := j.Limits.SetBytes
	for {
		h, body, err := readFrame(c.out, room)
		if err != nil {
			return nil, c.crashed()
		}
		switch h.Op {
		case opRead:
			a, content := files.read(h.Path)
			if err := writeFrame(c.in, header{Op: opAnswer, Answer: &a}, content); err != nil {
				return nil, c.crashed()
			}
		case opObject:
			room -= int64(len(body))
			o, err := decodeObject(h.Origin, body)
			if err != nil {
				return nil, err
			}
			if objects = append(objects, o); len(objects) > j.Limits.Objects {
				return nil, tooManyObjects(j.Limits)
			}
		case opDone:
			return objects, nil
		case opFailed:
			errs := make(Errors, len(h.Problems))
			for i, p := range h.Problems {
				errs[i] = p.err(files.failures)
			}
			return nil, errs
		default:
			return nil, &CrashError{Reason: "spoke out of turn"}
		}
	}
}

func tooManyObjects(limits Limits) *LimitError {
	return &LimitError{Limit: "Objects", Max: int64(limits.Objects), What: fmt.Sprintf("renders more than %d objects", limits.Objects)}
}

func decodeObject(origin *object.Origin, body []byte) (object.Object, error) {
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(body); err != nil || origin == nil {
		return object.Object{}, &CrashError{Reason: "sent an object that is none"}
	}
	return object.NewObject(u, *origin)
}

func (c *child) crashed() error {
	return &CrashError{Reason: "ended without an answer" + c.stderr.fatal()}
}

// firstBytes keeps the beginning of what a child writes on its standard error. kustomize's warnings and the
// stacks that Go's runtime prints land here; nobody is shown more of it than fatal finds.
type firstBytes struct {
	mu   sync.Mutex
	text []byte
}

func (f *firstBytes) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.text = append(f.text, p[:min(len(p), 8<<10-len(f.text))]...)
	return len(p), nil
}

// fatal is the runtime's own word for why it ended the process; these are constants, never data.
func (f *firstBytes) fatal() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, line := range strings.Split(string(f.text), "\n") {
		if why, ok := strings.CutPrefix(line, "fatal error: "); ok {
			return " (" + why + ")"
		}
	}
	return ""
}
