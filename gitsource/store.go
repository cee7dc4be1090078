package gitsource

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

const (
	objectCache = 8 << 20 // bytes, per mirror
	openPacks   = 16
)

// store is the bare repository on disk. go-git's storage is not made for concurrent use: mu guards
// it. Every object that is read is hashed again: packs are indexed once, and disks forget.
type store struct {
	dir string

	mu     sync.Mutex
	git    *filesystem.Storage
	broken error // why the store must be fetched anew
}

// openStore opens the repository in dir, or makes an empty one.
func openStore(dir string) (*store, error) {
	s := &store{dir: dir}
	for _, sub := range []string{"objects/pack", "objects/info", "refs/heads", "refs/tags", refsDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, diskError("make", err)
		}
	}
	for name, content := range map[string]string{ // so that git itself can look into it
		"HEAD":   "ref: refs/heads/main\n",
		"config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
	} {
		name = filepath.Join(dir, name)
		if _, err := os.Lstat(name); err == nil {
			continue
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			return nil, diskError("make", err)
		}
	}
	s.reopen()
	return s, nil
}

// reopen makes what was written to disk visible.
func (s *store) reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open()
}

func (s *store) open() {
	if s.git != nil {
		_ = s.git.Close()
	}
	s.git = filesystem.NewStorageWithOptions(osfs.New(s.dir, osfs.WithBoundOS()), cache.NewObjectLRU(objectCache),
		filesystem.Options{MaxOpenDescriptors: openPacks})
}

func (s *store) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.git.Close()
}

// replace puts the store in other's directory in the place of this one. The old one is first renamed
// aside: at every moment the name stands for one whole store or none.
func (s *store) replace(other *store) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	other.close()
	_ = s.git.Close()
	aside := s.dir + asideSuffix
	err := errors.Join(os.RemoveAll(aside), os.Rename(s.dir, aside), os.Rename(other.dir, s.dir))
	if err == nil {
		s.broken = nil
	}
	s.open()
	return diskError("replace", errors.Join(err, os.RemoveAll(aside)))
}

// health returns why the store must be fetched anew, and the number of its packs.
func (s *store) health() (broken error, packs int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names, _ := filepath.Glob(filepath.Join(s.dir, packDir, "*.pack"))
	return s.broken, len(names)
}

// has says whether an object is there, without reading it.
func (s *store) has(h plumbing.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.git.HasEncodedObject(h)
	if err != nil && !errors.Is(err, plumbing.ErrObjectNotFound) {
		_ = s.damaged(h, err)
	}
	return err == nil
}

// size returns the bytes of an object that must be there.
func (s *store) size(h plumbing.Hash) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.git.EncodedObjectSize(h)
	if err != nil {
		return 0, s.damaged(h, err)
	}
	return n, nil
}

// read returns the content of an object that must be there. The caller owns it.
func (s *store) read(h plumbing.Hash, t plumbing.ObjectType) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.git.EncodedObject(plumbing.AnyObject, h)
	if err != nil {
		return nil, s.damaged(h, err)
	}
	if o.Type() != t {
		return nil, s.damaged(h, fmt.Errorf("it is a %s, not a %s", o.Type(), t))
	}
	r, err := o.Reader()
	if err != nil {
		return nil, s.damaged(h, err)
	}
	defer r.Close() //nolint:errcheck // reading only
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, s.damaged(h, err)
	}
	if plumbing.ComputeHash(t, raw) != h {
		return nil, s.damaged(h, errors.New("its content has changed"))
	}
	return raw, nil
}

func (s *store) commit(h plumbing.Hash) (rawCommit, error) {
	raw, err := s.read(h, plumbing.CommitObject)
	if err != nil {
		return rawCommit{}, err
	}
	return parseCommit(h, raw)
}

// damaged remembers that the store must be fetched anew, unless the machine itself is in trouble.
func (s *store) damaged(h plumbing.Hash, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) && !errors.Is(err, fs.ErrNotExist) {
		return diskError("read", err)
	}
	e := &CorruptError{Hash: h.String(), Err: err}
	s.broken = e
	return e
}

func diskError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &DiskError{Op: op, Err: err}
}

// refsDir holds one file per followed branch, named by a hash of it: a branch named as another one's
// directory is no trouble, and a foreign name never becomes a path.
const refsDir = "refs/nexus"

// setRef remembers what was fetched for a branch: from there the next fetch starts.
func (s *store) setRef(branch string, h plumbing.Hash) error {
	name := filepath.Join(s.dir, refsDir, shortHash(branch))
	err := os.WriteFile(name+".new", []byte(h.String()+"\n"), 0o600)
	return diskError("write", errors.Join(err, os.Rename(name+".new", name)))
}

// refs are the commits that are there with all that leads to them.
func (s *store) refs() (tips []plumbing.Hash) {
	names, _ := filepath.Glob(filepath.Join(s.dir, refsDir, "*"))
	for _, name := range names {
		raw, err := os.ReadFile(name)
		h, ok := parseHash(strings.TrimSpace(string(raw)))
		if err == nil && ok && s.has(h) {
			tips = append(tips, h)
		}
	}
	return tips
}
