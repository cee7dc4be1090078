package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nexus-platform/reconciler/failpoint"
)

const (
	dataKey   = "data"
	writers   = 8
	loadLimit = 256 << 20 // bytes that one chunk may unpack to: what we write is far below
)

func writeItem(buf *bytes.Buffer, item []byte) {
	buf.Write(binary.AppendUvarint(nil, uint64(len(item))))
	buf.Write(item)
}

func readItems(content []byte) ([][]byte, error) {
	var items [][]byte
	for len(content) > 0 {
		n, used := binary.Uvarint(content)
		if used <= 0 || n > uint64(len(content)-used) {
			return nil, errors.New("a length does not fit")
		}
		content = content[used:]
		items = append(items, content[:n:n])
		content = content[n:]
	}
	return items, nil
}

func compress(b []byte) ([]byte, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer enc.Close()
	return enc.EncodeAll(b, nil), nil
}

func decompress(b []byte) ([]byte, error) {
	dec, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(loadLimit))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	return io.ReadAll(io.LimitReader(dec, loadLimit))
}

func (j *Journal) secretName(digest string) string {
	return "nexus-bundle-" + string(j.Environment) + "-" + digest[:32]
}

// Store makes a bundle durable and returns its digest. What is there already is not written again.
func (j *Journal) Store(ctx context.Context, b Bundle) (string, error) {
	chunks := b.cut()
	idx := index{Kind: b.kind, Items: len(b.items)}
	packed := make([][]byte, len(chunks))
	for i, c := range chunks {
		idx.Chunks = append(idx.Chunks, c.digest)
		if j.knows(j.secretName(c.digest)) {
			continue
		}
		var err error
		if packed[i], err = compress(c.content); err != nil {
			return "", err
		}
	}
	identity, err := json.Marshal(idx) // by content, wherever the content lies
	if err != nil {
		return "", err
	}
	digest := sum(identity)
	if len(chunks) == 1 && packed[0] != nil && len(packed[0]) <= inlineMax {
		idx.Inline, chunks = packed[0], nil
	}
	if j.knows(j.secretName(digest)) {
		return digest, nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	parts := []string{j.secretName(digest)}
	for i, c := range chunks {
		parts = append(parts, j.secretName(c.digest))
		if packed[i] != nil {
			g.Go(func() error { return j.put(gctx, j.secretName(c.digest), packed[i]) })
		}
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	content, err := json.Marshal(idx)
	if err != nil {
		return "", err
	}
	if content, err = compress(content); err != nil {
		return "", err
	}
	if err := j.put(ctx, parts[0], content); err != nil {
		return "", err
	}
	j.madeOf(digest, parts)
	return digest, nil
}

// put writes one Secret, unless it is there. Its name is the digest of its content, so one that is there is the same, or Load finds it damaged.
func (j *Journal) put(ctx context.Context, name string, data []byte) error {
	immutable := true
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: j.labels("bundle")},
		Type:       "nexus.dev/bundle", Immutable: &immutable,
		Data: map[string][]byte{dataKey: data},
	}
	failpoint.Here(failpoint.StoreBefore)
	_, err := j.Secrets.Create(ctx, s, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("write Secret %s of the journal: %w", name, classify(err))
	}
	j.learn(name)
	j.mu.Lock()
	j.fresh++
	j.mu.Unlock()
	return nil
}

// Load reads a bundle back. Every part is checked against its digest: the error is a *MissingChunkError or a *CorruptError that names the Secret.
func (j *Journal) Load(ctx context.Context, digest string) (Bundle, error) {
	if len(digest) != 64 {
		return Bundle{}, fmt.Errorf("%q is no digest of a bundle", digest)
	}
	name := j.secretName(digest)
	content, err := j.get(ctx, name)
	if err != nil {
		return Bundle{}, err
	}
	var idx index
	if err := json.Unmarshal(content, &idx); err != nil {
		return Bundle{}, &CorruptError{Secret: name, Cause: errors.New("it is no index")}
	}
	inline := idx.Inline
	idx.Inline = nil
	identity, err := json.Marshal(idx)
	if err != nil {
		return Bundle{}, err
	}
	if sum(identity) != digest {
		return Bundle{}, &CorruptError{Secret: name, Cause: errors.New("its content is not what its name says")}
	}
	b := Bundle{kind: idx.Kind}
	parts := []string{name}
	if inline != nil {
		plain, err := decompress(inline)
		if err != nil || len(idx.Chunks) != 1 || sum(plain) != idx.Chunks[0] {
			return Bundle{}, &CorruptError{Secret: name, Cause: errors.New("its content is not what its name says")}
		}
		if b.items, err = readItems(plain); err != nil {
			return Bundle{}, &CorruptError{Secret: name, Cause: err}
		}
	} else if b.items, err = j.loadChunks(ctx, idx.Chunks); err != nil {
		return Bundle{}, err
	} else {
		for _, c := range idx.Chunks {
			parts = append(parts, j.secretName(c))
		}
	}
	if len(b.items) != idx.Items {
		return Bundle{}, &CorruptError{Secret: name, Cause: fmt.Errorf("it has %d items, not %d", len(b.items), idx.Items)}
	}
	j.learn(parts...)
	j.madeOf(digest, parts)
	return b, nil
}

func (j *Journal) loadChunks(ctx context.Context, digests []string) ([][]byte, error) {
	loaded := make([][][]byte, len(digests))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for i, digest := range digests {
		g.Go(func() error {
			if len(digest) != 64 {
				return errors.New("the index names no digest")
			}
			name := j.secretName(digest)
			content, err := j.get(ctx, name)
			if err != nil {
				return err
			}
			if sum(content) != digest {
				return &CorruptError{Secret: name, Cause: errors.New("its content is not what its name says")}
			}
			if loaded[i], err = readItems(content); err != nil {
				return &CorruptError{Secret: name, Cause: err}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var items [][]byte
	for _, l := range loaded {
		items = append(items, l...)
	}
	return items, nil
}

func (j *Journal) get(ctx context.Context, name string) ([]byte, error) {
	s, err := j.Secrets.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, &MissingChunkError{Secret: name}
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s of the journal: %w", name, classify(err))
	}
	plain, err := decompress(s.Data[dataKey])
	if err != nil {
		return nil, &CorruptError{Secret: name, Cause: errors.New("it cannot be unpacked")}
	}
	return plain, nil
}

// collectAfter is how many Secrets are written before garbage is worth the requests to collect it.
const collectAfter = 64

// grace is how old garbage must be: another daemon may just be storing it.
const grace = 10 * time.Minute

// Collect deletes what no kept bundle names, once enough has been written since the last
// time. It returns how many Secrets it deleted.
func (j *Journal) Collect(ctx context.Context, keep ...string) (int, error) {
	j.mu.Lock()
	due := j.fresh >= collectAfter
	j.mu.Unlock()
	if !due {
		return 0, nil
	}
	names := map[string]bool{}
	for _, digest := range keep {
		if digest == "" {
			continue
		}
		if _, ok := j.parts(digest); !ok {
			if _, err := j.Load(ctx, digest); err != nil {
				return 0, fmt.Errorf("collect garbage: %w", err)
			}
		}
		parts, _ := j.parts(digest)
		for _, p := range parts {
			names[p] = true
		}
	}
	list, err := j.Metadata.List(ctx, metav1.ListOptions{LabelSelector: journalLabel + "=" + string(j.Environment) + "," + partLabel + "=bundle"})
	if err != nil {
		return 0, fmt.Errorf("collect garbage: %w", classify(err))
	}
	deleted := 0
	for _, item := range list.Items {
		if names[item.Name] {
			continue
		}
		if j.Now().Sub(item.CreationTimestamp.Time) < grace {
			names[item.Name] = true // still there: the next time
			continue
		}
		err := j.Secrets.Delete(ctx, item.Name, metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(item.UID))})
		if err != nil && !apierrors.IsNotFound(err) {
			return deleted, fmt.Errorf("collect garbage: %w", classify(err))
		}
		deleted++
	}
	j.forgetAllBut(names)
	return deleted, nil
}
