package objects

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"github.com/nexus-platform/reconciler/gitsource/internal/limit"
)

const (
	packDir    = "objects/pack"
	tempPrefix = "tmp_"
)

// Receive writes a pack into the store and returns its name without suffix, empty if it holds
// nothing. It is checked while it arrives, so that a bomb is stopped at its first byte too many and
// nothing of it stays on disk. go-git's own indexer would read each object into memory whole.
func (s *Store) Receive(ctx context.Context, from io.Reader, limits limit.Limits) (name string, err error) {
	file, err := os.CreateTemp(filepath.Join(s.dir, packDir), tempPrefix+"pack_")
	if err != nil {
		return "", diskError("write", err)
	}
	defer func() {
		err = errors.Join(err, file.Close())
		_ = os.Remove(file.Name()) // gone already if all went well
	}()
	out := &diskWriter{to: file}
	count, sum, err := scan(io.TeeReader(from, out), limits)
	switch {
	case out.err != nil:
		return "", diskError("write", out.err)
	case err != nil || count == 0:
		return "", err
	case !bytes.Equal(out.tail, sum[:]):
		return "", errors.New("something follows the end of the pack")
	}
	return s.index(ctx, file)
}

// diskWriter remembers that it was the disk that failed, not the network, and how the file ends.
type diskWriter struct {
	to   io.Writer
	err  error
	tail []byte
}

func (d *diskWriter) Write(b []byte) (int, error) {
	n, err := d.to.Write(b)
	d.err = err
	d.tail = append(d.tail, b[max(0, len(b)-len(plumbing.Hash{})):]...)
	d.tail = d.tail[max(0, len(d.tail)-len(plumbing.Hash{})):]
	return n, err
}

// scan reads a pack to its end and refuses what is malformed or too large, before anything is
// allocated for it. It returns the number of objects and the trailer.
func scan(from io.Reader, limits limit.Limits) (count uint32, sum plumbing.Hash, err error) {
	sc := packfile.NewScanner(from)
	_, count, err = sc.Header()
	switch {
	case errors.Is(err, packfile.ErrEmptyPackfile):
		return 0, sum, nil
	case err != nil:
		return 0, sum, err
	case int64(count) > int64(limits.Objects):
		return 0, sum, &limit.Error{Path: "pack", Limit: "Objects", Max: int64(limits.Objects)}
	}
	tooLarge := &limit.Error{Path: "an object of the pack", Limit: "ObjectBytes", Max: limits.ObjectBytes}
	for range count {
		h, err := sc.NextObjectHeader()
		if err != nil {
			return 0, sum, err
		}
		if h.Length > limits.ObjectBytes {
			return 0, sum, tooLarge
		}
		var head prefix
		n, _, err := sc.NextObject(&head)
		if err != nil {
			return 0, sum, err
		}
		if n != h.Length {
			return 0, sum, errors.New("an object is shorter than its header says")
		}
		if h.Type.IsDelta() {
			size, err := head.result()
			if err != nil {
				return 0, sum, err
			}
			if size > uint64(limits.ObjectBytes) {
				return 0, sum, tooLarge
			}
		}
	}
	if sum, err = sc.Checksum(); err != nil {
		return 0, sum, err
	}
	return count, sum, sc.Close() // reads to the end of the stream
}

// prefix keeps the first bytes of an object: a delta says there how large its result is.
type prefix struct{ head []byte }

func (p *prefix) Write(b []byte) (int, error) {
	p.head = append(p.head, b[:min(len(b), 2*binary.MaxVarintLen64-len(p.head))]...)
	return len(b), nil
}

// result is the size of what a delta makes.
func (p *prefix) result() (uint64, error) {
	r := bytes.NewReader(p.head)
	if _, err := binary.ReadUvarint(r); err != nil { // of the base
		return 0, errors.New("a delta is malformed")
	}
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, errors.New("a delta is malformed")
	}
	return size, nil
}

// index resolves the deltas, writes the index and gives both files their names, the index first: a
// pack is known by its .pack.
func (s *Store) index(ctx context.Context, file *os.File) (name string, err error) {
	defer func() {
		if p := recover(); p != nil { // a library reads foreign bytes here
			err = fmt.Errorf("the pack cannot be indexed: %v", p)
		}
	}()
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return "", diskError("read", err)
	}
	writer := new(idxfile.Writer)
	parser, err := packfile.NewParser(packfile.NewScanner(&stoppable{file, ctx.Err}), writer)
	if err != nil {
		return "", err
	}
	sum, err := parser.Parse()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", err
	}
	index, err := writer.Index()
	if err != nil {
		return "", err
	}
	name = filepath.Join(s.dir, packDir, "pack-"+sum.String())
	if err := writeIndex(index, name+".idx"); err != nil {
		return "", diskError("write", err)
	}
	if err := errors.Join(file.Sync(), os.Chmod(file.Name(), 0o400), os.Rename(file.Name(), name+".pack")); err != nil {
		_ = os.Remove(name + ".idx")
		return "", diskError("write", err)
	}
	return name, nil
}

func writeIndex(index *idxfile.MemoryIndex, name string) error {
	temp := filepath.Join(filepath.Dir(name), tempPrefix+filepath.Base(name))
	defer os.Remove(temp) // gone already if all went well
	file, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o400)
	if err != nil {
		return err
	}
	_, err = idxfile.NewEncoder(file).Encode(index)
	return errors.Join(err, file.Sync(), file.Close(), os.Rename(temp, name))
}

// Drop takes a pack out of the store again.
func (s *Store) Drop(name string) {
	if name == "" {
		return
	}
	_ = os.Remove(name + ".pack")
	_ = os.Remove(name + ".idx")
}

// Sweep removes what a killed process left: unfinished files, and indexes whose pack never came.
func (s *Store) Sweep() {
	temps, _ := filepath.Glob(filepath.Join(s.dir, packDir, tempPrefix+"*"))
	indexes, _ := filepath.Glob(filepath.Join(s.dir, packDir, "*.idx"))
	for _, name := range indexes {
		if _, err := os.Stat(strings.TrimSuffix(name, ".idx") + ".pack"); errors.Is(err, os.ErrNotExist) {
			temps = append(temps, name)
		}
	}
	for _, name := range temps {
		_ = os.Remove(name)
	}
}

// stoppable lets ctx end the resolving of deltas, which a crafted pack can make long.
type stoppable struct {
	*os.File
	stopped func() error
}

func (s *stoppable) Read(b []byte) (int, error) {
	if err := s.stopped(); err != nil {
		return 0, err
	}
	return s.File.Read(b)
}
