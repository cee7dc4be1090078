package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"

	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/object"
)

const (
	journalLabel = object.Domain + "journal" // value: the environment's UID
	partLabel    = object.Domain + "part"    // head, spare or bundle
	releaseLabel = object.Domain + "release" // on a plan: the number of its release
	headKey      = "head"
	maxHead      = 32 << 10 // bytes
)

// Journal is the durable memory of one environment. Its fields are set before use.
type Journal struct {
	Secrets     corev1client.SecretInterface // of the namespace that holds the journal
	Metadata    metadata.ResourceInterface   // of the same Secrets
	Namespace   string                       // its name, for messages
	Environment types.UID
	Now         func() time.Time

	mu     sync.Mutex
	known  map[string]bool     // Secrets that are there for sure: this process wrote or read them
	chunks map[string][]string // by bundle: the Secrets that it is made of
	fresh  int                 // Secrets written since the last Collect
	swept  bool                // this process has collected
	spare  copied
	doubt  bool // the head was lost when it was read last
}

func (j *Journal) headName() string { return "nexus-head-" + string(j.Environment) }

// Head reads the head by a quorum read, and writes nothing. A head that was never stored is the zero Head of the environment; of one
// that is gone it says Missing.
func (j *Journal) Head(ctx context.Context) (Head, error) {
	s, err := j.Secrets.Get(ctx, j.headName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return j.unborn(ctx)
	}
	if err != nil {
		return Head{}, fmt.Errorf("read the head: %w", classify(err))
	}
	j.trust()
	return j.decode(s)
}

func (j *Journal) decode(s *corev1.Secret) (Head, error) {
	var probe struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(s.Data[headKey], &probe); err != nil {
		return Head{}, &CorruptError{Secret: s.Name, Cause: errors.New("it is not JSON")}
	}
	if probe.Version > Version {
		return Head{}, &NewerError{Secret: s.Name, Version: probe.Version}
	}
	var h Head
	if err := json.Unmarshal(s.Data[headKey], &h); err != nil {
		return Head{}, &CorruptError{Secret: s.Name, Cause: errors.New("it is no head")}
	}
	if h.Environment != j.Environment {
		return Head{}, &CorruptError{Secret: s.Name, Cause: fmt.Errorf("it is of the environment %q", h.Environment)}
	}
	if err := h.sound(); err != nil {
		return Head{}, &CorruptError{Secret: s.Name, Cause: err}
	}
	h.revision = s.ResourceVersion
	return h, nil
}

// Swap writes the head if it is still the one that was read. The error is ErrConflict if it is
// not, an *UnknownOutcomeError if the answer was lost: after both, the head must be read again.
func (j *Journal) Swap(ctx context.Context, from, to Head) (Head, error) {
	if err := Legal(from, to); err != nil {
		return Head{}, err
	}
	if from.State != Idle && to.State == Idle {
		if err := j.copy(ctx, to, from.revision); err != nil {
			return Head{}, err
		}
	}
	return j.write(ctx, from, to)
}

// write is Swap without what the protocol asks of it.
func (j *Journal) write(ctx context.Context, from, to Head) (Head, error) {
	b, err := json.Marshal(to)
	if err != nil {
		return Head{}, err
	}
	if len(b) > maxHead {
		return Head{}, &TooLargeError{Bytes: len(b)}
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: j.headName(), Labels: j.labels("head"), ResourceVersion: from.revision},
		Type:       "nexus.dev/head",
		Data:       map[string][]byte{headKey: b},
	}
	if failpoint.Without(failpoint.CompareAndSwap) {
		secret.ResourceVersion = ""
	}
	failpoint.Here(failpoint.SwapBefore)
	if from.revision == "" {
		secret, err = j.Secrets.Create(ctx, secret, metav1.CreateOptions{})
	} else {
		secret, err = j.Secrets.Update(ctx, secret, metav1.UpdateOptions{})
	}
	failpoint.Here(failpoint.SwapAfter)
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		return Head{}, fmt.Errorf("%w: %w", ErrConflict, err)
	case err != nil:
		err = classify(err)
		var unavailable *UnavailableError
		if errors.As(err, &unavailable) || errors.Is(err, context.Canceled) {
			return Head{}, &UnknownOutcomeError{Cause: err}
		}
		return Head{}, fmt.Errorf("write the head: %w", err)
	}
	to.revision = secret.ResourceVersion
	return to, nil
}

// Selector finds every Secret of the journal by its labels.
func (j *Journal) Selector() string { return journalLabel + "=" + string(j.Environment) }

func (j *Journal) labels(part string) map[string]string {
	return map[string]string{journalLabel: string(j.Environment), partLabel: part}
}

// Delete removes the whole memory of an environment that is gone, the head last.
func (j *Journal) Delete(ctx context.Context) error {
	selector := j.Selector()
	for _, part := range []string{partLabel + "=bundle", partLabel + "=spare", partLabel + "=head"} {
		err := j.Secrets.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: selector + "," + part})
		if err != nil {
			return fmt.Errorf("delete the journal: %w", classify(err))
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.known, j.chunks, j.spare = nil, nil, copied{}
	return nil
}
