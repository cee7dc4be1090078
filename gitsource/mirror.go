package gitsource

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/nexus-platform/reconciler/gitsource/internal/limit"
	"github.com/nexus-platform/reconciler/gitsource/internal/objects"
	"github.com/nexus-platform/reconciler/gitsource/internal/remote"
)

type (
	// Remote says how a repository is reached.
	Remote = remote.Remote
	// Secret is text that no log, error or document shows.
	Secret = remote.Secret
	// Limits bound what one repository may cost.
	Limits = limit.Limits
)

// DefaultLimits are the limits of a zero Limits.
func DefaultLimits() Limits { return limit.Default() }

// Mirrors keeps one bare repository on disk for each that is followed, shared by all who follow it with
// the same credentials. What is in Dir may vanish at any time; it is fetched again.
type Mirrors struct {
	Dir    string // set before use; made if missing, readable by its owner only
	Limits Limits

	mu   sync.Mutex
	open map[string]*Mirror
}

// Open returns the mirror of a repository; nothing is asked yet. Whoever opens it with newer
// credentials under the same identity changes them for all.
func (m *Mirrors) Open(r Remote) (*Mirror, error) {
	addr, err := r.Address()
	if err != nil {
		return nil, err
	}
	key := shortHash(addr.String() + "\n" + r.Credential)
	m.mu.Lock()
	defer m.mu.Unlock()
	mirror := m.open[key]
	if mirror != nil && mirror.uses(r) {
		return mirror, nil
	}
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return nil, &DiskError{Op: "make", Err: err}
	}
	limits := m.Limits.OrDefault()
	client, err := remote.New(r, limits, m.Dir)
	if err != nil {
		return nil, err
	}
	if mirror != nil {
		mirror.use(r, client)
		return mirror, nil
	}
	mirror = &Mirror{
		url: addr.String(), dir: filepath.Join(m.Dir, dirName(addr, key)), limits: limits,
		remote: r, client: client, turn: make(chan struct{}, 1), tips: make(map[string]*tip),
	}
	if mirror.store, err = objects.Open(mirror.dir); err != nil {
		return nil, err
	}
	if m.open == nil {
		m.open = make(map[string]*Mirror)
	}
	m.open[key] = mirror
	return mirror, nil
}

// dirName lets a person find a repository in Dir.
func dirName(a remote.Address, key string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, a.Host+a.Path)
	name = strings.TrimLeft(name, ".-")
	return name[:min(len(name), 80)] + "-" + key
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:10])
}

// Mirror is the copy of one repository. It may be used concurrently.
type Mirror struct {
	url    string
	dir    string
	limits Limits
	store  *objects.Store
	turn   chan struct{} // held by the one who writes the store

	mu     sync.Mutex
	remote Remote
	client *remote.Client
	tips   map[string]*tip
}

// URL is the repository's, without user information.
func (m *Mirror) URL() string { return m.url }

func (m *Mirror) uses(r Remote) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return reflect.DeepEqual(m.remote, r)
}

// use takes newer credentials; what the old ones were answered no longer counts.
func (m *Mirror) use(r Remote, c *remote.Client) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remote, m.client = r, c
	m.tips = make(map[string]*tip)
}

// tip is what the repository last said about one branch.
type tip struct {
	turn chan struct{} // held by the one who asks
	hash string
	err  error
	at   time.Time
}

// askTip asks where a branch stands, or takes an answer that is younger than maxAge or came while it
// waited for its turn: many environments of one repository ask once. A failure is shared too, lest
// each waits out the same dead server.
func (m *Mirror) askTip(ctx context.Context, branch string, maxAge time.Duration) (string, error) {
	m.mu.Lock()
	t, client := m.tips[branch], m.client
	if t == nil {
		t = &tip{turn: make(chan struct{}, 1)}
		m.tips[branch] = t
	}
	m.mu.Unlock()
	began := time.Now()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case t.turn <- struct{}{}:
	}
	defer func() { <-t.turn }()
	if !t.at.IsZero() && (t.at.After(began) || (t.err == nil && time.Since(t.at) < maxAge)) {
		return t.hash, t.err
	}
	bounded, cancel := m.bound(ctx)
	defer cancel()
	hash, err := client.Tip(bounded, branch)
	if ctx.Err() != nil {
		return "", err // it says nothing about the repository
	}
	t.hash, t.err, t.at = hash, err, time.Now()
	return hash, err
}

// bound limits one call as a whole.
func (m *Mirror) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, m.limits.Total, &UnreachableError{URL: m.url, Err: errTotal(m.limits.Total)})
}

// Tree shows the files of a commit. Beside *UnknownCommitError it returns *CommitError and *CorruptError.
func (m *Mirror) Tree(ctx context.Context, hash string) (*Tree, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c, err := m.commit(hash)
	if err != nil {
		return nil, err
	}
	return newTree(hash, c.Tree, c.When, m.store, m.limits), nil
}

// commit reads a commit that may not be there.
func (m *Mirror) commit(hash string) (objects.Commit, error) {
	h, ok := objects.ParseHash(hash)
	if !ok || !m.store.Has(h) {
		return objects.Commit{}, &UnknownCommitError{Hash: hash}
	}
	return m.store.Commit(h)
}
