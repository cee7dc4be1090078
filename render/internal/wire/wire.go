// Package wire is what a render process and its parent say to each other: a job, questions and answers, objects, and all that can be wrong with a commit.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/nexus-platform/reconciler/object"
)

// The child and its parent speak in frames over two pipes: the length of the header and of the body, four
// bytes each, the header as JSON, the body as it is. The parent does not trust a word of it: a child
// that was taken over can say anything, so every length has a limit and nothing in a frame is code.

const headerBytes = 1 << 20

// MaxProblems is how many errors are handed over at most, so that they fit a header.
const MaxProblems = 1_000

// PolicyName is the file beside an overlay's kustomization.yaml that says how to deploy it.
const PolicyName = "release.yaml"

// What a frame is about. The child says ready, then gets its job; it asks to read and
// gets an answer each time, sends its objects, and says done or failed.
const (
	OpReady  = "ready"
	OpJob    = "job"
	OpRead   = "read"
	OpAnswer = "answer"
	OpObject = "object"
	OpDone   = "done"
	OpFailed = "failed"
)

// Header is the part of a frame that has fields.
type Header struct {
	Op       string
	Path     string         `json:",omitempty"` // ready: what went wrong in the sandbox; else a path in the repository
	Job      *Job           `json:",omitempty"`
	Answer   *Answer        `json:",omitempty"`
	Origin   *object.Origin `json:",omitempty"`
	Problems []Problem      `json:",omitempty"`
}

// Job is what the child has to do.
type Job struct {
	Path    string
	Limits  Limits
	AgeKeys []string
}

// Answer tells what is at a path; the content of a file is the body of the frame.
type Answer struct {
	Kind   FileKind
	Real   string      `json:",omitempty"` // of a directory: its path, free of links
	Failed bool        `json:",omitempty"` // the file cannot be read; the parent keeps the reason
	Limit  *LimitError `json:",omitempty"`
}

// FileKind is what a path leads to.
type FileKind int

// What can be at a path.
const (
	Absent FileKind = iota
	Regular
	Directory
)

// Write writes one frame.
func Write(w io.Writer, h Header, body []byte) error {
	head, err := json.Marshal(h)
	if err != nil {
		return err
	}
	var lengths [8]byte
	binary.BigEndian.PutUint32(lengths[:4], uint32(len(head)))
	binary.BigEndian.PutUint32(lengths[4:], uint32(len(body)))
	if _, err := w.Write(append(lengths[:], head...)); err != nil {
		return err
	}
	if len(body) == 0 {
		return nil
	}
	_, err = w.Write(body)
	return err
}

// Read reads one frame whose body has at most maxBody bytes.
func Read(r io.Reader, maxBody int64) (h Header, body []byte, err error) {
	var lengths [8]byte
	if _, err := io.ReadFull(r, lengths[:]); err != nil {
		return h, nil, err
	}
	head, size := binary.BigEndian.Uint32(lengths[:4]), binary.BigEndian.Uint32(lengths[4:])
	if head > headerBytes || int64(size) > maxBody {
		return h, nil, fmt.Errorf("a frame of %d and %d bytes is too long", head, size)
	}
	raw := make([]byte, int(head)+int(size))
	if _, err := io.ReadFull(r, raw); err != nil {
		return h, nil, err
	}
	if err := json.Unmarshal(raw[:head], &h); err != nil {
		return h, nil, fmt.Errorf("a frame's header: %w", err)
	}
	return h, raw[head:], nil
}
