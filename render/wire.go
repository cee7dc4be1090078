package render

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

const (
	headerBytes = 1 << 20
	maxProblems = 1_000
)

// What a frame is about. The child says ready, then gets its job; it asks to read and
// gets an answer each time, sends its objects, and says done or failed.
const (
	opReady  = "ready"
	opJob    = "job"
	opRead   = "read"
	opAnswer = "answer"
	opObject = "object"
	opDone   = "done"
	opFailed = "failed"
)

// header is the part of a frame that has fields.
type header struct {
	Op       string
	Path     string         `json:",omitempty"` // ready: what went wrong in the sandbox; else a path in the repository
	Job      *job           `json:",omitempty"`
	Answer   *answer        `json:",omitempty"`
	Origin   *object.Origin `json:",omitempty"`
	Problems []problem      `json:",omitempty"`
}

// job is what the child has to do.
type job struct {
	Path    string
	Limits  Limits
	AgeKeys []string
}

// answer tells what is at a path; the content of a file is the body of the frame.
type answer struct {
	Kind   fileKind
	Real   string      `json:",omitempty"` // of a directory: its path, free of links
	Failed bool        `json:",omitempty"` // the file cannot be read; the parent keeps the reason
	Limit  *LimitError `json:",omitempty"`
}

// fileKind is what a path leads to.
type fileKind int

const (
	absent fileKind = iota
	regular
	directory
)

func writeFrame(w io.Writer, h header, body []byte) error {
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

// readFrame reads one frame whose body has at most maxBody bytes.
func readFrame(r io.Reader, maxBody int64) (h header, body []byte, err error) {
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
