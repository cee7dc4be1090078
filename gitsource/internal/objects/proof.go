package objects

import (
	"context"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
)

// Samples are commits to tell the server that we have: each base, and its first parents at growing
// distances, so that a branch that was set back is not sent whole.
func (s *Store) Samples(bases []plumbing.Hash) (out []string, err error) {
	const steps = 512
	for _, h := range bases {
		for i := range steps {
			c, err := s.Commit(h)
			if err != nil {
				return nil, err
			}
			if i&(i-1) == 0 { // 0, 1, 2, 4, 8 …
				out = append(out, h.String())
			}
			if len(c.Parents) == 0 {
				break
			}
			h = c.Parents[0]
		}
	}
	return out, nil
}

// Prove proves what was just received, before anybody else can see it: Refresh makes it visible.
func (s *Store) Prove(ctx context.Context, want plumbing.Hash, bases []plumbing.Hash) error {
	unseen, err := Open(s.dir)
	if err != nil {
		return err
	}
	defer unseen.Close()
	return unseen.complete(ctx, want, bases)
}

// complete proves that a commit is there with its history and with all its files. What the bases have
// was proved before.
func (s *Store) complete(ctx context.Context, want plumbing.Hash, bases []plumbing.Hash) error {
	if _, _, err := Since(ctx, s, want, bases...); err != nil {
		return err
	}
	tip, err := s.Commit(want)
	if err != nil {
		return err
	}
	top := pair{tree: tip.Tree}
	for _, b := range bases {
		base, err := s.Commit(b)
		if err != nil {
			return err
		}
		top.bases = append(top.bases, base.Tree)
	}
	seen := make(map[plumbing.Hash]bool)
	for todo := []pair{top}; len(todo) > 0; {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[p.tree] || slices.Contains(p.bases, p.tree) {
			continue
		}
		seen[p.tree] = true
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		below, err := s.changed(p)
		if err != nil {
			return err
		}
		todo = append(todo, below...)
	}
	return nil
}

// pair is a directory, and what the bases have in its place.
type pair struct {
	tree  plumbing.Hash
	bases []plumbing.Hash
}

// changed returns the directories in a tree that no base has in their place, and an error if a file is
// not there. Whether its names are fit to be read is asked when they are.
func (s *Store) changed(p pair) (below []pair, err error) {
	proved := make(map[plumbing.Hash]bool)
	places := make(map[string][]plumbing.Hash)
	for _, b := range p.bases {
		entries, err := s.entries(b)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			proved[e.Hash] = true
			if e.Mode == ModeDir {
				places[e.Name] = append(places[e.Name], e.Hash)
			}
		}
	}
	entries, err := s.entries(p.tree)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		switch {
		case proved[e.Hash]:
		case e.Mode == ModeDir:
			below = append(below, pair{e.Hash, places[e.Name]})
		case isFile(e.Mode) && !s.Has(e.Hash):
			return nil, &CorruptError{Hash: e.Hash.String(), Err: plumbing.ErrObjectNotFound}
		}
	}
	return below, nil
}

func (s *Store) entries(tree plumbing.Hash) ([]Entry, error) {
	raw, err := s.Read(tree, plumbing.TreeObject)
	if err != nil {
		return nil, err
	}
	entries, err := splitTree(raw)
	if err != nil {
		return nil, &TreeError{Path: "tree " + tree.String(), Reason: err.Error()}
	}
	return entries, nil
}
