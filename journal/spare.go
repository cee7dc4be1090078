package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nexus-platform/reconciler/failpoint"
)

// The spare is a second Secret with the head as it was when the environment last came to rest. A head that somebody deletes is
// rebuilt from it, if no release was opened since: the plan of each is durable before its head, and carries its number.

func (j *Journal) spareName() string { return "nexus-spare-" + string(j.Environment) }

// copied is what this process knows of the spare.
type copied struct {
	revision string // resourceVersion; empty: not known
	epoch    int64  // of the head that it is a copy of
}

// Rest makes sure that there is a spare of a head that is idle. Where there is one it sends nothing.
func (j *Journal) Rest(ctx context.Context, h Head) error {
	j.mu.Lock()
	there := j.spare.revision != "" && j.spare.epoch == h.Epoch
	j.mu.Unlock()
	if h.State != Idle || !h.Exists() || there {
		return nil
	}
	return j.copy(ctx, h, h.revision)
}

// copy writes the spare of a head that is, or is about to be, written over the one of a resourceVersion. For a head that closes a
// release it does so before that head is written: all that the release had to do is done by then. A process that was away fails by the
// resourceVersion of the spare; one that does not know it reads the head after it, because only who is the newest may write.
func (j *Journal) copy(ctx context.Context, h Head, current string) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	j.mu.Lock()
	revision := j.spare.revision
	j.spare = copied{} // until the answer is there
	j.mu.Unlock()
	if revision == "" {
		s, err := j.Secrets.Get(ctx, j.spareName(), metav1.GetOptions{})
		switch {
		case err == nil && bytes.Equal(s.Data[headKey], b):
			j.knowSpare(s, h.Epoch)
			return nil
		case err == nil:
			revision = s.ResourceVersion
			now, err := j.Secrets.Get(ctx, j.headName(), metav1.GetOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("read the head: %w", classify(err))
			}
			if err != nil || now.ResourceVersion != current {
				return fmt.Errorf("write the spare of the head: %w", ErrConflict)
			}
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("read the spare of the head: %w", classify(err))
		}
	}
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: j.spareName(), Labels: j.labels("spare"), ResourceVersion: revision},
		Type:       "nexus.dev/head",
		Data:       map[string][]byte{headKey: b},
	}
	failpoint.Here(failpoint.SpareBefore)
	if revision == "" {
		s, err = j.Secrets.Create(ctx, s, metav1.CreateOptions{})
	} else {
		s, err = j.Secrets.Update(ctx, s, metav1.UpdateOptions{})
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		return fmt.Errorf("write the spare of the head: %w: %w", ErrConflict, err)
	case err != nil:
		return fmt.Errorf("write the spare of the head: %w", classify(err))
	}
	j.knowSpare(s, h.Epoch)
	return nil
}

func (j *Journal) knowSpare(s *corev1.Secret, epoch int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.spare = copied{revision: s.ResourceVersion, epoch: epoch}
}

// unborn is the head of an environment that has none: a new one, or, where bundles tell that there was one, its spare, which
// Rebuild makes the head.
func (j *Journal) unborn(ctx context.Context) (Head, error) {
	list, err := j.Metadata.List(ctx, metav1.ListOptions{LabelSelector: j.Selector()})
	if err != nil {
		return Head{}, fmt.Errorf("look for bundles: %w", classify(err))
	}
	if len(list.Items) == 0 { // whoever deleted them all wants to begin anew
		j.forgetAllBut(nil)
		j.knowSpare(&corev1.Secret{}, 0)
		j.trust()
		return Head{Version: Version, Environment: j.Environment, State: Idle}, nil
	}
	lost := &LostHeadError{Secret: j.headName()}
	there := map[string]bool{}
	for _, item := range list.Items {
		there[item.Name] = true
		if n, err := strconv.ParseInt(item.Labels[releaseLabel], 10, 64); err == nil {
			lost.Release = max(lost.Release, n)
		}
	}
	if j.doubts() || !there[j.spareName()] {
		return j.lose(lost)
	}
	s, err := j.Secrets.Get(ctx, j.spareName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return j.lose(lost)
	}
	if err != nil {
		return Head{}, fmt.Errorf("read the spare of the head: %w", classify(err))
	}
	h, err := j.decode(s)
	if err != nil {
		return Head{}, err
	}
	opened := h.Number < lost.Release && !failpoint.Without(failpoint.NoOlderHead)
	if h.State != Idle || opened || !j.whole(h, there) {
		return j.lose(lost)
	}
	h.revision, h.missing = "", true
	return h, nil
}

// Rebuild stores the head that Missing tells of. Of several processes one succeeds; the others get ErrConflict.
func (j *Journal) Rebuild(ctx context.Context, h Head) (Head, error) {
	h, err := j.write(ctx, h, h.next(Idle))
	if err != nil {
		return Head{}, fmt.Errorf("rebuild the head: %w", err)
	}
	return h, nil
}

// lose remembers that the head is lost: who is deleting the journal, one Secret after the other, may just have deleted what told
// that a release was open.
func (j *Journal) lose(lost *LostHeadError) (Head, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.doubt = true
	return Head{}, lost
}

func (j *Journal) doubts() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.doubt
}

func (j *Journal) trust() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.doubt = false
}

// whole reports that what a head at rest names is there.
func (j *Journal) whole(h Head, there map[string]bool) bool {
	digests := []string{h.Inventory}
	if h.Good != nil {
		digests = append(digests, h.Good.Set, h.Good.Policy)
	}
	return !slices.ContainsFunc(digests, func(d string) bool { return d != "" && !there[j.secretName(d)] })
}
