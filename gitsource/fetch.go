package gitsource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/nexus-platform/reconciler/gitsource/internal/objects"
)

const (
	newSuffix = ".new" // a store that is being fetched, to replace another
	maxPacks  = 64     // a mirror of more is fetched anew, into one
)

func errTotal(d time.Duration) error { return fmt.Errorf("the whole call took longer than %s", d) }

// ensure makes a commit of a branch and all its history be in the store. It asks the repository only
// if it must: if the commit is not there, or the store is damaged.
func (m *Mirror) ensure(ctx context.Context, branch string, want plumbing.Hash) error {
	if m.store.Broken() == nil && m.store.Has(want) {
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
	unlock, err := objects.Lock(ctx, m.dir+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	m.store.Sweep()
	if err := m.store.Refresh(); err != nil { // another process may have written
		return err
	}
	switch broken := m.store.Broken() != nil; {
	case !broken && m.store.Has(want):
		return nil
	case broken || m.store.Packs() >= maxPacks:
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
		return &DiskError{Op: "make", Err: err}
	}
	fresh, err := objects.Open(dir)
	if err != nil {
		return err
	}
	if err := m.download(ctx, fresh, branch, want); err != nil {
		fresh.Close()
		_ = os.RemoveAll(dir)
		return err
	}
	return m.store.Replace(fresh)
}

// download fetches into a store. If it fails, the store is as it was. A *CorruptError from a store that
// held something before may be its own fault; from an empty one it is the server's.
func (m *Mirror) download(ctx context.Context, s *objects.Store, branch string, want plumbing.Hash) error {
	bases := s.Refs()
	haves, err := s.Samples(bases)
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
	name, err := s.Receive(ctx, from, m.limits)
	_ = from.Close()
	if err != nil {
		return m.explain(ctx, err)
	}
	if err := s.Prove(ctx, want, bases); err != nil {
		s.Drop(name)
		var corrupt *CorruptError
		if len(bases) == 0 && errors.As(err, &corrupt) {
			return &PackError{URL: m.url, Err: fmt.Errorf("it lacks object %s", corrupt.Hash)}
		}
		return err
	}
	return errors.Join(s.SetRef(branch, want), s.Refresh())
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
	if errors.As(err, &limit) {
		return &LimitError{Path: limit.Path + " of " + m.url, Limit: limit.Limit, Max: limit.Max}
	}
	if errors.As(err, &unreachable) || errors.As(err, &disk) {
		return err
	}
	return &PackError{URL: m.url, Err: err}
}
