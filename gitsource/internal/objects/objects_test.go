package objects

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/nexus-platform/reconciler/gitsource/internal/limit"
)

func TestB11CollidingBytesAreNoticed(t *testing.T) {
	var plain [][sha1.Size]byte
	names, err := filepath.Glob("testdata/sha1-collision/*")
	if err != nil || len(names) != 2 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, forged := digest(raw); !forged {
			t.Errorf("%s passes as honest", name)
		}
		plain = append(plain, sha1.Sum(raw))
		if _, forged := digest([]byte("blob 640\x00"), raw); forged {
			t.Errorf("%s is harmless behind a header, but refused", name)
		}
	}
	if plain[0] != plain[1] {
		t.Error("the two do not collide")
	}
}

func TestAnObjectIsHashedWhenItIsRead(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	hash, _ := sum(plumbing.BlobObject, []byte("true"))
	name := filepath.Join(s.dir, "objects", hash.String()[:2], hash.String()[2:])
	for _, content := range []string{"true", "evil"} {
		good := content == "true"
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, deflate(t, "blob 4\x00"+content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Refresh(); err != nil {
			t.Fatal(err)
		}
		raw, err := s.Read(hash, plumbing.BlobObject)
		var corrupt *CorruptError
		if good != (err == nil && string(raw) == content) || !good && !errors.As(err, &corrupt) {
			t.Errorf("%s: %q, %v", content, raw, err)
		}
	}
	if s.Broken() == nil {
		t.Error("the store thinks that it is whole")
	}
}

func TestAnObjectShorterThanItsHeaderSaysIsRefused(t *testing.T) {
	for claimed, good := range map[byte]bool{4: true, 5: false, 3: false} {
		pack := append([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01"), 3<<4|claimed)
		pack = append(pack, deflate(t, "true")...)
		trailer, _ := digest(pack)
		s, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Receive(t.Context(), bytes.NewReader(append(pack, trailer[:]...)), limit.Default())
		if (err == nil) != good {
			t.Errorf("4 bytes that claim to be %d: %v", claimed, err)
		}
		s.Close()
	}
}

func deflate(t *testing.T, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	_, err := w.Write([]byte(text))
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// graph is a history in memory: each commit names its parents.
type graph map[plumbing.Hash]Commit

func (g graph) Commit(h plumbing.Hash) (Commit, error) {
	c, ok := g[h]
	if !ok {
		return Commit{}, &CorruptError{Hash: h.String()}
	}
	return c, nil
}

func id(n int) plumbing.Hash { return plumbing.NewHash(fmt.Sprintf("%040x", n+1)) }

// ancestors is the slow and obvious way.
func (g graph) ancestors(h plumbing.Hash) map[plumbing.Hash]bool {
	all := map[plumbing.Hash]bool{}
	for todo := []plumbing.Hash{h}; len(todo) > 0; {
		h, todo = todo[0], todo[1:]
		if !all[h] {
			all[h] = true
			todo = append(todo, g[h].Parents...)
		}
	}
	return all
}

func TestSinceAgreesWithTheObviousWay(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		skewed := seed%2 == 1 // clocks that run backwards
		g := graph{}
		const size = 40
		for i := range size {
			c := Commit{Hash: id(i), When: time.Unix(int64(i), 0)}
			if skewed {
				c.When = time.Unix(random.Int64N(size), 0)
			}
			for range min(i, 1+random.IntN(2)) {
				if p := id(random.IntN(i)); !slices.Contains(c.Parents, p) {
					c.Parents = append(c.Parents, p)
				}
			}
			g[c.Hash] = c
		}
		tip, base := id(random.IntN(size)), id(random.IntN(size))
		fresh, reached, err := Since(context.Background(), g, tip, base)
		if err != nil {
			t.Fatal(err)
		}
		of, old := g.ancestors(tip), g.ancestors(base)
		if reached[base] != of[base] {
			t.Errorf("seed %d: descends: %t", seed, reached[base])
		}
		for h := range of {
			if !old[h] && !slices.Contains(fresh, h) {
				t.Errorf("seed %d: %s is new and was not found", seed, h)
			}
		}
		for _, h := range fresh {
			if !of[h] || (old[h] && !skewed) {
				t.Errorf("seed %d: %s is not new", seed, h)
			}
		}
	}
}

func FuzzParseCommit(f *testing.F) {
	f.Add([]byte("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nhello\n"))
	f.Add([]byte("tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nparent 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\ngpgsig -----BEGIN\n x\n -----END\nencoding x\n\nhello\n"))
	f.Add([]byte("tree"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		kept := bytes.Clone(raw)
		c, err := ParseCommit(plumbing.ZeroHash, raw)
		if !bytes.Equal(kept, raw) {
			t.Error("the object was changed")
		}
		if err != nil {
			return
		}
		if !bytes.HasPrefix(raw, []byte("tree "+c.Tree.String()+"\n")) {
			t.Error("the tree is not the one that the object begins with")
		}
		again, err := ParseCommit(plumbing.ZeroHash, c.Payload)
		if err != nil || again.Tree != c.Tree || !slices.Equal(again.Parents, c.Parents) || again.Message != c.Message || again.Author != c.Author {
			t.Errorf("what was signed reads differently: %v", err)
		}
	})
}

func FuzzParseTree(f *testing.F) {
	f.Add([]byte("100644 a\x00aaaaaaaaaaaaaaaaaaaa40000 b\x00bbbbbbbbbbbbbbbbbbbb"))
	f.Add([]byte("100644 \x00aaaaaaaaaaaaaaaaaaaa"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, err := ParseTree("dir", raw)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, e := range entries {
			if e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00\n") || strings.EqualFold(e.Name, ".git") || seen[e.Name] {
				t.Errorf("the name %q was taken", e.Name)
			}
			seen[e.Name] = true
		}
	})
}

func TestA06NamesThatNoServerSends(t *testing.T) {
	if _, err := ParseTree("dir", []byte("100644 \x00aaaaaaaaaaaaaaaaaaaa")); err == nil {
		t.Error("an empty name was taken")
	}
	for _, raw := range []string{"100644 a\x00short", "100644", "100644 a", "8 a\x00aaaaaaaaaaaaaaaaaaaa", " a\x00aaaaaaaaaaaaaaaaaaaa", "-100644 a\x00aaaaaaaaaaaaaaaaaaaa"} {
		if _, err := ParseTree("dir", []byte(raw)); err == nil {
			t.Errorf("%q was taken", raw)
		}
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x00"))
	f.Add([]byte("PACK\x00\x00\x00\x02\xff\xff\xff\xff\x30"))
	limits := limit.Limits{ObjectBytes: 1 << 16, Objects: 100}.OrDefault()
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		// Without the right trailer nothing after it would ever be tried.
		sum, _ := digest(raw)
		name, err := s.Receive(t.Context(), bytes.NewReader(append(bytes.Clone(raw), sum[:]...)), limits)
		left, _ := filepath.Glob(filepath.Join(s.dir, packDir, "*"))
		if err != nil && (name != "" || len(left) > 0) {
			t.Errorf("refused (%v), but left %v", err, left)
		}
	})
}
