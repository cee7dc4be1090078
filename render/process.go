package render

import (
	"bufio"
	"context"
	"errors"
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
	"github.com/nexus-platform/reconciler/render/internal/wire"
)

// sampleEvery is how often a child's memory is looked at.
const sampleEvery = 50 * time.Millisecond

// process is one render process, seen from its parent.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	pipe   io.ReadCloser
	out    *bufio.Reader
	stderr *firstBytes
	peak   atomic.Int64               // resident bytes
	limit  atomic.Pointer[LimitError] // that it was killed for
}

// start starts a child. It has no environment, and the root directory as its own.
func (r *Renderer) start() (*process, error) {
	command := r.Command
	if len(command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program to start a render process: %w", err)
		}
		command = []string{self, ChildVerb}
	}
	p := &process{cmd: exec.Command(command[0], command[1:]...), stderr: &firstBytes{}}
	p.cmd.Env, p.cmd.Dir, p.cmd.Stderr = []string{}, "/", p.stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a render process: %w", err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a render process: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a render process: %w", err)
	}
	p.in, p.pipe, p.out = in, out, bufio.NewReaderSize(out, 64<<10)
	return p, nil
}

// ready waits for the child's first word: that it is locked in.
func (p *process) ready() error {
	h, _, err := wire.Read(p.out, 0)
	switch {
	case err != nil || h.Op != wire.OpReady:
		return &SandboxError{Reason: "the render process did not come up"}
	case h.Path != "":
		return &SandboxError{Reason: h.Path}
	}
	return nil
}

// stop hangs up, which ends the child, and waits for it.
func (p *process) stop() {
	defer time.AfterFunc(graceToEnd, func() { p.kill(nil) }).Stop()
	p.in.Close()
	p.pipe.Close() // a child that is still writing ends of it
	p.cmd.Wait()   //nolint:errcheck // how it ended is told by what it said, and by ProcessState
}

// graceToEnd is how long a child may take to notice that its parent has hung up.
const graceToEnd = 2 * time.Second

func (r *Renderer) check() error {
	p, err := r.start()
	if err != nil {
		return err
	}
	defer time.AfterFunc(10*time.Second, func() { p.cmd.Process.Kill() }).Stop() //nolint:errcheck // it may have ended
	defer p.stop()
	return p.ready()
}

// run has a child do a job, and answers its questions. It returns the objects and the child's peak of resident bytes.
func (r *Renderer) run(ctx context.Context, j wire.Job, files *served) ([]object.Object, int64, error) {
	p, err := r.start()
	if err != nil {
		return nil, 0, err
	}
	answered, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		p.watch(ctx, answered, j.Limits)
	}()
	objects, err := p.serve(j, files)
	close(answered)
	<-watched // before stop has waited for it, the pid is nobody else's
	p.sample()
	p.stop()
	limit := p.limit.Load()
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, 0, context.Cause(ctx)
	case err != nil && limit != nil:
		return nil, 0, limit
	case errors.Is(err, errEnded):
		return nil, 0, &CrashError{Reason: fmt.Sprintf("ended without an answer: %s%s", p.cmd.ProcessState, p.stderr.fatal())}
	}
	return objects, p.peak.Load(), err
}

// watch kills the child where it takes too much memory or time, or where nobody waits for it any more.
func (p *process) watch(ctx context.Context, answered <-chan struct{}, limits Limits) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	deadline := time.NewTimer(limits.Time)
	defer deadline.Stop()
	for {
		select {
		case <-answered:
			return
		case <-ctx.Done():
			p.kill(nil)
			return
		case <-deadline.C:
			p.kill(&LimitError{Limit: "Time", Max: int64(limits.Time), What: fmt.Sprintf("takes longer than %s to render", limits.Time)})
			return
		case <-tick.C:
			if p.sample() > limits.Memory {
				p.kill(&LimitError{Limit: "Memory", Max: limits.Memory, What: "takes more than " + wire.BytesText(limits.Memory) + " of memory to render"})
				return
			}
		}
	}
}

// kill makes serve return; why is nil where the caller knows.
func (p *process) kill(why *LimitError) {
	p.limit.Store(why)
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
}

// sample looks at the child's memory now, and remembers its peak.
func (p *process) sample() int64 {
	now, peak := residentBytes(p.cmd.Process.Pid)
	p.peak.Store(max(p.peak.Load(), now, peak))
	return now
}

// serve gives the child its job, answers what it asks, and takes its objects.
func (p *process) serve(j wire.Job, files *served) ([]object.Object, error) {
	if err := p.ready(); err != nil {
		return nil, err
	}
	if err := wire.Write(p.in, wire.Header{Op: wire.OpJob, Job: &j}, nil); err != nil {
		return nil, errEnded
	}
	var objects []object.Object
	room := j.Limits.SetBytes
	for {
		h, body, err := wire.Read(p.out, room)
		if err != nil {
			return nil, errEnded
		}
		switch h.Op {
		case wire.OpRead:
			a, content := files.read(h.Path)
			if err := wire.Write(p.in, wire.Header{Op: wire.OpAnswer, Answer: &a}, content); err != nil {
				return nil, errEnded
			}
		case wire.OpObject:
			room -= int64(len(body))
			o, err := decodeObject(h.Origin, body)
			if err != nil {
				return nil, err
			}
			if objects = append(objects, o); len(objects) > j.Limits.Objects {
				return nil, wire.TooManyObjects(j.Limits)
			}
		case wire.OpDone:
			return objects, nil
		case wire.OpFailed:
			errs := make(Errors, len(h.Problems))
			for i, problem := range h.Problems {
				errs[i] = problem.Err(files.failures)
			}
			return nil, errs
		default:
			return nil, &CrashError{Reason: "spoke out of turn"}
		}
	}
}

func decodeObject(origin *object.Origin, body []byte) (object.Object, error) {
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(body); err != nil || origin == nil {
		return object.Object{}, &CrashError{Reason: "sent an object that is none"}
	}
	return object.NewObject(u, *origin)
}

// errEnded says that the child hung up in the middle of its job.
var errEnded = errors.New("the render process ended")

// firstBytes keeps the beginning of what a child writes on its standard error. kustomize's warnings and the
// stacks that Go's runtime prints land here; nobody is shown more of it than fatal finds.
type firstBytes struct {
	mu   sync.Mutex
	text []byte
}

func (f *firstBytes) Write(text []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.text = append(f.text, text[:min(len(text), 8<<10-len(f.text))]...)
	return len(text), nil
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
