package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
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

var errNotItsName = errors.New("its content is not what its name says")

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
			g.Go(func() error {
				_, err := j.put(gctx, j.secretName(c.digest), packed[i], 0)
				return err
			})
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
	made, err := j.put(ctx, parts[0], content, b.release)
	if err != nil {
		return "", err
	}
	if made { // an older one may have its chunk elsewhere: Collect reads where
		j.madeOf(digest, parts)
	}
	return digest, nil
}

// put writes one Secret, unless it is there, and tells whether it did. Its name is the digest of
// its content, so one that is there is the same, or Load finds it damaged.
func (j *Journal) put(ctx context.Context, name string, data []byte, release int64) (made bool, err error) {
	immutable := true
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: j.labels("bundle")},
		Type:       "nexus.dev/bundle", Immutable: &immutable,
		Data: map[string][]byte{dataKey: data},
	}
	if release > 0 {
		s.Labels[releaseLabel] = strconv.FormatInt(release, 10)
	}
	failpoint.Here(failpoint.StoreBefore)
	if failpoint.Without(failpoint.JournalFirst) {
		time.AfterFunc(time.Second, func() { _, _ = j.Secrets.Create(context.WithoutCancel(ctx), s, metav1.CreateOptions{}) })
		return true, nil
	}
	_, err = j.Secrets.Create(ctx, s, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return false, fmt.Errorf("write Secret %s of the journal: %w", name, classify(err))
	}
	j.learn(name)
	j.mu.Lock()
	j.fresh++
	j.mu.Unlock()
	return err == nil, nil
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
		return Bundle{}, &CorruptError{Secret: name, Cause: errNotItsName}
	}
	parts := []string{name}
	var plain []byte
	if inline != nil {
		plain, err = decompress(inline)
		if err != nil || len(idx.Chunks) != 1 || sum(plain) != idx.Chunks[0] {
			return Bundle{}, &CorruptError{Secret: name, Cause: errNotItsName}
		}
	} else {
		for _, c := range idx.Chunks {
			parts = append(parts, j.secretName(c))
		}
		if plain, err = j.loadChunks(ctx, idx.Chunks); err != nil {
			return Bundle{}, err
		}
	}
	b := Bundle{kind: idx.Kind}
	if b.items, err = readItems(plain); err != nil {
		return Bundle{}, &CorruptError{Secret: name, Cause: err}
	}
	if len(b.items) != idx.Items {
		return Bundle{}, &CorruptError{Secret: name, Cause: fmt.Errorf("it has %d items, not %d", len(b.items), idx.Items)}
	}
	j.learn(parts...)
	j.madeOf(digest, parts)
	return b, nil
}

// loadChunks reads the content of a bundle, which its chunks hold one after the other.
func (j *Journal) loadChunks(ctx context.Context, digests []string) ([]byte, error) {
	loaded := make([][]byte, len(digests))
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
				return &CorruptError{Secret: name, Cause: errNotItsName}
			}
			loaded[i] = content
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return bytes.Join(loaded, nil), nil
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
