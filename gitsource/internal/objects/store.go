package objects

import (
	"crypto/sha256"
	"encoding/hex"
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
	"github.com/pjbgf/sha1cd"
)

const (
	objectCache = 4 << 20 // bytes, per mirror
	openPacks   = 16
)

// Store is the bare repository on disk. go-git's storage is not made for concurrent use: mu guards
// it. Every object that is read is hashed again: packs are indexed once, and disks forget.
type Store struct {
	dir string

	mu     sync.Mutex
	git    *filesystem.Storage
	broken error // why the store must be fetched anew
}

// Open opens the repository in dir, or makes an empty one.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir}
	return s, s.Refresh()
}

// Refresh makes what was changed on disk visible, and makes anew what has gone from it.
func (s *Store) Refresh() error {
	for _, sub := range []string{packDir, "objects/info", "refs/heads", "refs/tags", refsDir} {
		if err := os.MkdirAll(filepath.Join(s.dir, sub), 0o700); err != nil {
			return diskError("make", err)
		}
	}
	for name, content := range map[string]string{ // so that git itself can look into it
		"HEAD":   "ref: refs/heads/main\n",
		"config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
	} {
		name = filepath.Join(s.dir, name)
		if _, err := os.Lstat(name); err == nil {
			continue
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			return diskError("make", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open()
	return nil
}

func (s *Store) open() {
	if s.git != nil {
		_ = s.git.Close()
	}
	s.git = filesystem.NewStorageWithOptions(osfs.New(s.dir, osfs.WithBoundOS()), cache.NewObjectLRU(objectCache),
		filesystem.Options{MaxOpenDescriptors: openPacks})
}

// Close gives back what the store holds open.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.git.Close()
}

// Replace puts the store in other's directory in the place of this one. The old one is first renamed
// aside: at every moment the name stands for one whole store or none.
func (s *Store) Replace(other *Store) error {
	other.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.git.Close()
	defer s.open()
	aside := s.dir + ".old"
	if err := os.RemoveAll(aside); err != nil {
		return diskError("replace", err)
	}
	if err := os.Rename(s.dir, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError("replace", err)
	}
	if err := os.Rename(other.dir, s.dir); err != nil {
		return diskError("replace", err)
	}
	s.broken = nil
	return diskError("replace", os.RemoveAll(aside))
}

// Broken says why the store must be fetched anew; nil if it is whole as far as is known.
func (s *Store) Broken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// Packs is how many packs there are.
func (s *Store) Packs() int {
	names, _ := filepath.Glob(filepath.Join(s.dir, packDir, "*.pack"))
	return len(names)
}

// Has says whether an object is there, without reading it.
func (s *Store) Has(h plumbing.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.git.HasEncodedObject(h)
	if err != nil && !errors.Is(err, plumbing.ErrObjectNotFound) {
		_ = s.damaged(h, err)
	}
	return err == nil
}

// Size returns the bytes of an object that must be there.
func (s *Store) Size(h plumbing.Hash) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.git.EncodedObjectSize(h)
	if err != nil {
		return 0, s.damaged(h, err)
	}
	return n, nil
}

// Read returns the content of an object that must be there. The caller owns it.
func (s *Store) Read(h plumbing.Hash, t plumbing.ObjectType) ([]byte, error) {
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
	defer r.Close()
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, s.damaged(h, err)
	}
	sum, forged := sum(t, raw)
	switch {
	case forged:
		return nil, &CollisionError{Hash: h.String()}
	case sum != h:
		return nil, s.damaged(h, errors.New("its content has changed"))
	}
	return raw, nil
}

// sum is the hash of an object, and whether its bytes were made to share it with others.
func sum(t plumbing.ObjectType, raw []byte) (h plumbing.Hash, forged bool) {
	return digest(fmt.Appendf(nil, "%s %d\x00", t, len(raw)), raw)
}

func digest(parts ...[]byte) (h plumbing.Hash, forged bool) {
	d := sha1cd.New().(sha1cd.CollisionResistantHash)
	for _, p := range parts {
		_, _ = d.Write(p)
	}
	out, forged := d.CollisionResistantSum(nil)
	copy(h[:], out)
	return h, forged
}

// Commit reads a commit that must be there.
func (s *Store) Commit(h plumbing.Hash) (Commit, error) {
	raw, err := s.Read(h, plumbing.CommitObject)
	if err != nil {
		return Commit{}, err
	}
	return ParseCommit(h, raw)
}

// damaged remembers that the store must be fetched anew, unless the machine itself is in trouble.
func (s *Store) damaged(h plumbing.Hash, err error) error {
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

// SetRef remembers what was fetched for a branch: from there the next fetch starts.
func (s *Store) SetRef(branch string, h plumbing.Hash) error {
	key := sha256.Sum256([]byte(branch))
	name := filepath.Join(s.dir, refsDir, hex.EncodeToString(key[:10]))
	err := os.WriteFile(name+".new", []byte(h.String()+"\n"), 0o600)
	return diskError("write", errors.Join(err, os.Rename(name+".new", name)))
}

// Refs are the commits that are there with all that leads to them.
func (s *Store) Refs() (tips []plumbing.Hash) {
	names, _ := filepath.Glob(filepath.Join(s.dir, refsDir, "*"))
	for _, name := range names {
		raw, err := os.ReadFile(name)
		h, ok := ParseHash(strings.TrimSpace(string(raw)))
		if err == nil && ok && s.Has(h) {
			tips = append(tips, h)
		}
	}
	return tips
}
