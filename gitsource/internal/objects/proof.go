package objects

import (
	"context"

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
	seen := make(map[plumbing.Hash]bool)
	for _, b := range bases {
		base, err := s.Commit(b)
		if err != nil {
			return err
		}
		seen[base.Tree] = true
	}
	for todo := []plumbing.Hash{tip.Tree}; len(todo) > 0; {
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
func (s *Store) subtrees(h plumbing.Hash) (dirs []plumbing.Hash, err error) {
	raw, err := s.Read(h, plumbing.TreeObject)
	if err != nil {
		return nil, err
	}
	entries, err := splitTree(raw)
	if err != nil {
		return nil, &TreeError{Path: "tree " + h.String(), Reason: err.Error()}
	}
	for _, e := range entries {
		switch e.Mode {
		case ModeDir:
			dirs = append(dirs, e.Hash)
		case ModeFile, ModeGroupFile, ModeExec, ModeLink:
			if !s.Has(e.Hash) {
				return nil, &CorruptError{Hash: e.Hash.String(), Err: plumbing.ErrObjectNotFound}
			}
		}
	}
	return dirs, nil
}
