package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/revlist"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

const fileCache = 8 << 20 // bytes

// fileLink reads a repository on this machine in our own process: no git is started, so neither its
// hooks nor its configuration can start anything else.
type fileLink struct{ dir string }

func (f *fileLink) open() (*filesystem.Storage, error) {
	dir := f.dir
	if inside, err := os.Stat(filepath.Join(dir, ".git")); err == nil && inside.IsDir() {
		dir = filepath.Join(dir, ".git")
	}
	if _, err := os.Stat(filepath.Join(dir, "objects")); err != nil {
		return nil, errors.New("there is no Git repository")
	}
	bound := osfs.New(dir, osfs.WithBoundOS())
	return filesystem.NewStorage(bound, cache.NewObjectLRU(fileCache)), nil
}

func (f *fileLink) tip(_ context.Context, ref string, _ *watch) (string, error) {
	s, err := f.open()
	if err != nil {
		return "", err
	}
	r, err := storer.ResolveReference(s, plumbing.ReferenceName(ref))
	switch {
	case errors.Is(err, plumbing.ErrReferenceNotFound):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read %s: %w", ref, err)
	}
	return r.Hash().String(), nil
}

func (f *fileLink) pack(ctx context.Context, q query, w *watch) (io.Reader, func(), error) {
	s, err := f.open()
	if err != nil {
		return nil, nil, err
	}
	var haves []plumbing.Hash
	for _, h := range q.haves {
		if hash := plumbing.NewHash(h); s.HasEncodedObject(hash) == nil {
			haves = append(haves, hash)
		}
	}
	w.next("find objects")
	wants, err := revlist.Objects(stoppable{s, ctx.Err}, []plumbing.Hash{plumbing.NewHash(q.want)}, haves)
	if err != nil {
		return nil, nil, fmt.Errorf("find what leads to %s: %w", q.want, err)
	}
	r, out := io.Pipe()
	go func() {
		// Without deltas: they cost more time than the copy on one machine saves.
		_, err := packfile.NewEncoder(out, stoppable{s, ctx.Err}, false).Encode(wants, 0)
		_ = out.CloseWithError(err)
	}()
	return r, func() { _ = r.Close() }, nil
}

// stoppable lets ctx end a walk over a repository.
type stoppable struct {
	*filesystem.Storage
	stopped func() error
}

func (s stoppable) EncodedObject(t plumbing.ObjectType, h plumbing.Hash) (plumbing.EncodedObject, error) {
	if err := s.stopped(); err != nil {
		return nil, err
	}
	return s.Storage.EncodedObject(t, h)
}
