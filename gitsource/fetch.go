package gitsource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

func errTotal(d time.Duration) error { return fmt.Errorf("the whole call took longer than %s", d) }

// ensure makes a commit of a branch and all its history be in the store. It asks the repository only
// if it must: if the commit is not there, or the store is damaged.
func (m *Mirror) ensure(ctx context.Context, branch string, want plumbing.Hash) error {
	if broken, _ := m.store.health(); broken == nil && m.store.has(want) {
		return nil
	}
	ctx, cancel := m.bound(ctx)
	defer cancel()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case m.turn <- struct{}{}:
	}
	defer func() { <-m.turn }()
	unlock, err := lock(ctx, m.dir+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	m.store.sweep()
	m.store.reopen() // another process may have written
	broken, packs := m.store.health()
	switch {
	case broken == nil && m.store.has(want):
		return nil
	case broken != nil || packs >= maxPacks:
		return m.refetch(ctx, branch, want)
	}
	err = m.download(ctx, m.store, branch, want)
	var corrupt *CorruptError
	if errors.As(err, &corrupt) {
		return m.refetch(ctx, branch, want)
	}
	return err
}

// refetch replaces the store by a fresh one. Until that is whole, what can be read of the old one
// stays readable.
func (m *Mirror) refetch(ctx context.Context, branch string, want plumbing.Hash) error {
	dir := m.dir + newSuffix
	if err := os.RemoveAll(dir); err != nil {
		return diskError("make", err)
	}
	fresh, err := openStore(dir)
	if err != nil {
		return err
	}
	if err := m.download(ctx, fresh, branch, want); err != nil {
		fresh.close()
		_ = os.RemoveAll(dir)
		return err
	}
	return m.store.replace(fresh)
}

// download fetches into a store. If it fails, the store is as it was. A *CorruptError from a store that
// held something before may be its own fault; from an empty one it is the server's.
func (m *Mirror) download(ctx context.Context, s *store, branch string, want plumbing.Hash) error {
	bases := s.refs()
	haves, err := samples(s, bases)
	if err != nil {
		return err
	}
	m.mu.Lock()
	client := m.client
	m.mu.Unlock()
	from, err := client.Pack(ctx, want.String(), branch, haves)
	if err != nil {
		return err
	}
	name, err := s.receive(ctx, from, m.limits)
	_ = from.Close()
	if err != nil {
		return m.explain(ctx, err)
	}
	s.reopen()
	if err := complete(ctx, s, want, bases); err != nil {
		s.drop(name)
		var corrupt *CorruptError
		if len(bases) == 0 && errors.As(err, &corrupt) {
			return &PackError{URL: m.url, Err: fmt.Errorf("it lacks object %s", corrupt.Hash)}
		}
		return err
	}
	return s.setRef(branch, want)
}

// explain tells a bad pack from a bad connection, a full disk and the end of ctx.
func (m *Mirror) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var (
		unreachable *UnreachableError
		limit       *LimitError
		disk        *DiskError
	)
	if errors.As(err, &unreachable) || errors.As(err, &limit) || errors.As(err, &disk) {
		return err
	}
	return &PackError{URL: m.url, Err: err}
}

// samples are commits to tell the server that we have: each base, and its first parents at growing
// distances, so that a branch that was set back is not sent whole.
func samples(s *store, bases []plumbing.Hash) (out []string, err error) {
	const steps = 512
	for _, h := range bases {
		for i := range steps {
			c, err := s.commit(h)
			if err != nil {
				return nil, err
			}
			if i&(i-1) == 0 { // 0, 1, 2, 4, 8 …
				out = append(out, h.String())
			}
			if len(c.parents) == 0 {
				break
			}
			h = c.parents[0]
		}
	}
	return out, nil
}

// complete proves that a commit is there with its history and with all its files. What the bases have
// was proved before.
func complete(ctx context.Context, s *store, want plumbing.Hash, bases []plumbing.Hash) error {
	if _, _, err := since(ctx, s, want, bases...); err != nil {
		return err
	}
	tip, err := s.commit(want)
	if err != nil {
		return err
	}
	seen := make(map[plumbing.Hash]bool)
	for _, b := range bases {
		base, err := s.commit(b)
		if err != nil {
			return err
		}
		seen[base.tree] = true
	}
	for todo := []plumbing.Hash{tip.tree}; len(todo) > 0; {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[h] {
			continue
		}
		seen[h] = true
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		below, err := s.subtrees(h)
		if err != nil {
			return err
		}
		todo = append(todo, below...)
	}
	return nil
}

// subtrees returns the directories in a tree, and an error if one of its files is not there. Whether
// its names are fit to be read is asked when they are.
func (s *store) subtrees(h plumbing.Hash) (dirs []plumbing.Hash, err error) {
	raw, err := s.read(h, plumbing.TreeObject)
	if err != nil {
		return nil, err
	}
	entries, err := splitTree(raw)
	if err != nil {
		return nil, &TreeError{Path: "tree " + h.String(), Reason: err.Error()}
	}
	for _, e := range entries {
		switch e.mode {
		case modeDir:
			dirs = append(dirs, e.hash)
		case modeFile, modeGroupFile, modeExec, modeLink:
			if !s.has(e.hash) {
				return nil, &CorruptError{Hash: e.hash.String(), Err: plumbing.ErrObjectNotFound}
			}
		}
	}
	return dirs, nil
}

// lock lets one process at a time write a mirror. It is tried rather than waited for, so that ctx ends it.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Clean(name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, diskError("lock", err)
	}
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = file.Close() }, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			_ = file.Close()
			return nil, diskError("lock", err)
		}
		select {
		case <-ctx.Done():
			_ = file.Close()
			return nil, context.Cause(ctx)
		case <-again.C:
		}
	}
}
