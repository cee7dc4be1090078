package gitsource_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nexus-platform/reconciler/e2e/gitserver"
	"github.com/nexus-platform/reconciler/gitsource"
)

// packOf writes commit, tree and blob objects as they are into a pack.
func packOf(objects ...packObject) []byte {
	pack := bytes.NewBufferString("PACK\x00\x00\x00\x02")
	pack.Write(binary.BigEndian.AppendUint32(nil, uint32(len(objects))))
	for _, o := range objects {
		writeObject(pack, o.kind, "", []byte(o.raw))
	}
	return seal(append(pack.Bytes(), make([]byte, sha1.Size)...))
}

type packObject struct {
	kind byte // 1 commit, 2 tree, 3 blob
	raw  string
}

func (o packObject) hash() string {
	kind := []string{"", "commit", "tree", "blob"}[o.kind]
	return fmt.Sprintf("%x", sha1.Sum(fmt.Appendf(nil, "%s %d\x00%s", kind, len(o.raw), o.raw)))
}

// serveCommit serves one crafted commit, on the tree of the repository's HEAD.
func serveCommit(t *testing.T, repo *gitserver.Repo, raw string) (hash, url string) {
	commit := packObject{1, raw}
	tree := packObject{2, string(catFile(t, repo, "tree", "HEAD^{tree}"))}
	blob := packObject{3, string(catFile(t, repo, "blob", "HEAD:a"))}
	return commit.hash(), hostile(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(frame(packOf(commit, tree, blob)))
	})
}

func TestB10PacksThatLackSomething(t *testing.T) {
	server := gitserver.Start(t)
	repo := server.Init("shop")
	repo.Release("first", "a", "1", "d/b", "b")
	tip := repo.Release("second", "a", "2", "d/b", "c")
	object := func(kind byte, name string) packObject {
		return packObject{kind, string(catFile(t, repo, []string{"", "commit", "tree", "blob"}[kind], name))}
	}
	all := []packObject{
		object(1, "HEAD"), object(1, "HEAD~1"), object(2, "HEAD^{tree}"), object(2, "HEAD:d"), object(3, "HEAD:a"), object(3, "HEAD:d/b"),
	}
	lacks := map[string]int{
		"nothing": -1, "the commit": 0, "its parent": 1, "its tree": 2, "a directory": 3, "a file": 4, "a file in a directory": 5,
	}
	for name, without := range lacks {
		t.Run(name, func(t *testing.T) {
			url := hostile(t, func(w http.ResponseWriter, _ *http.Request) {
				var some []packObject
				for i, o := range all {
					if i != without {
						some = append(some, o)
					}
				}
				// What the first commit alone has is not looked for: nothing reads it.
				_, _ = w.Write(frame(packOf(some...)))
			})
			_, err := follow(open(t, gitsource.Remote{URL: url})).Fetch(t.Context(), tip, "")
			if without < 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			as[*gitsource.PackError](t, err)
		})
	}
}

// catFile is git cat-file, byte for byte.
func catFile(t *testing.T, repo *gitserver.Repo, kind, name string) []byte {
	t.Helper()
	cmd := exec.Command("git", "-C", repo.Dir, "cat-file", kind, name)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestACorruptMirrorHeals(t *testing.T) {
	damages := map[string]func(t *testing.T, dir string){
		"packs gone":              func(t *testing.T, dir string) { each(t, dir, "*.pack", os.Remove) },
		"indexes gone":            func(t *testing.T, dir string) { each(t, dir, "*.idx", os.Remove) },
		"all packs and indexes":   func(t *testing.T, dir string) { each(t, dir, "*", os.Remove) },
		"packs empty":             func(t *testing.T, dir string) { each(t, dir, "*.pack", truncate(0)) },
		"packs cut":               func(t *testing.T, dir string) { each(t, dir, "*.pack", truncate(40)) },
		"indexes empty":           func(t *testing.T, dir string) { each(t, dir, "*.idx", truncate(0)) },
		"indexes cut":             func(t *testing.T, dir string) { each(t, dir, "*.idx", truncate(1100)) },
		"packs with changed bits": func(t *testing.T, dir string) { each(t, dir, "*.pack", flip) },
		"indexes with changed bits": func(t *testing.T, dir string) {
			each(t, dir, "*.idx", flip)
		},
		"the newest pack alone gone": func(t *testing.T, dir string) {
			names, _ := filepath.Glob(filepath.Join(dir, "*.pack"))
			newest, at := "", int64(0)
			for _, name := range names {
				if info, err := os.Stat(name); err == nil && info.ModTime().UnixNano() > at {
					newest, at = name, info.ModTime().UnixNano()
				}
			}
			if err := os.Remove(newest); err != nil {
				t.Fatal(err)
			}
		},
		"the whole directory": func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "..", "..")); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, damage := range damages {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restarted %t", name, restart), func(t *testing.T) {
				t.Parallel()
				server := gitserver.Start(t)
				repo := server.Init("shop")
				first := repo.Release("first", "a", strings.Repeat("1\n", 50), "d/b", "b")
				mirrors := &gitsource.Mirrors{Dir: t.TempDir()}
				m, err := mirrors.Open(gitsource.Remote{URL: server.URL("shop")})
				if err != nil {
					t.Fatal(err)
				}
				fetchTip(t, follow(m))
				second := repo.Release("second", "a", strings.Repeat("2\n", 50))
				fetchTip(t, follow(m))
				packs, err := filepath.Glob(filepath.Join(mirrors.Dir, "*", "objects", "pack"))
				if err != nil || len(packs) != 1 {
					t.Fatal(packs, err)
				}
				damage(t, packs[0])
				if restart {
					if m, err = (&gitsource.Mirrors{Dir: mirrors.Dir}).Open(gitsource.Remote{URL: server.URL("shop")}); err != nil {
						t.Fatal(err)
					}
				}
				// A poll finds the same commit; what is read of it may show the damage, once.
				for try := range 2 {
					_, err = follow(m).Fetch(t.Context(), second, first)
					if err == nil {
						err = read(m, second, strings.Repeat("2\n", 50))
					}
					if err == nil {
						break
					}
					if try == 0 {
						as[*gitsource.CorruptError](t, err)
					}
				}
				if err != nil {
					t.Fatalf("not healed: %v", err)
				}
				if err := read(m, first, strings.Repeat("1\n", 50)); err != nil {
					t.Errorf("the commit before: %v", err)
				}
				left, _ := filepath.Glob(filepath.Join(mirrors.Dir, "*.old"))
				more, _ := filepath.Glob(filepath.Join(mirrors.Dir, "*.new"))
				if len(left)+len(more) > 0 {
					t.Errorf("left over: %v %v", left, more)
				}
			})
		}
	}
}

// read reads a whole commit.
func read(m *gitsource.Mirror, hash, a string) error {
	tree, err := m.Tree(context.Background(), hash)
	if err != nil {
		return err
	}
	got, err := tree.ReadFile("a")
	if err == nil && string(got) != a {
		return fmt.Errorf("a is %q", got)
	}
	if err == nil {
		_, err = tree.ReadFile("d/b")
	}
	return err
}

func each(t *testing.T, dir, pattern string, do func(string) error) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		if err := do(name); err != nil {
			t.Fatal(err)
		}
	}
}

func truncate(size int64) func(string) error {
	return func(name string) error { return os.Truncate(name, size) }
}

// flip changes a bit of every 16th byte after the head.
func flip(name string) error {
	raw, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for i := 12; i < len(raw); i += 16 {
		raw[i] ^= 4
	}
	if err := os.Chmod(name, 0o600); err != nil {
		return err
	}
	return os.WriteFile(name, raw, 0o600)
}

func TestManySmallFetchesDoNotPileUp(t *testing.T) {
	server := gitserver.Start(t)
	repo := server.Init("shop")
	var stream strings.Builder
	for i := range 70 {
		fmt.Fprintf(&stream, "commit refs/heads/main\ncommitter Jane <j@x> %d +0000\ndata 1\nx\nM 100644 inline a\ndata 2\n%02d\n", i, i)
	}
	repo.GitInput(stream.String(), "fast-import", "--quiet")
	repo.Git("push", "-q", "origin", "main")
	dir := t.TempDir()
	m, err := (&gitsource.Mirrors{Dir: dir}).Open(gitsource.Remote{URL: server.URL("shop")})
	if err != nil {
		t.Fatal(err)
	}
	last, most, packs := "", 0, []string(nil)
	for _, next := range strings.Fields(repo.Git("rev-list", "--reverse", "main")) {
		if _, err := follow(m).Fetch(t.Context(), next, last); err != nil {
			t.Fatal(err)
		}
		last = next
		packs, _ = filepath.Glob(filepath.Join(dir, "*", "objects", "pack", "*.pack"))
		most = max(most, len(packs))
	}
	if most > 64 || len(packs) > 10 {
		t.Errorf("70 pushes made up to %d packs, at last %d", most, len(packs))
	}
}

func TestADirectoryThatVanishesComesBack(t *testing.T) {
	server := gitserver.Start(t)
	repo := server.Init("shop")
	repo.Release("first", "a", "1")
	mirrors := &gitsource.Mirrors{Dir: t.TempDir()}
	m, err := mirrors.Open(gitsource.Remote{URL: server.URL("shop")})
	if err != nil {
		t.Fatal(err)
	}
	fetchTip(t, follow(m))
	if err := os.RemoveAll(mirrors.Dir); err != nil {
		t.Fatal(err)
	}
	repo.Release("second", "a", "2")
	if got, err := treeOf(t, m, fetchTip(t, follow(m)).Hash).ReadFile("a"); err != nil || string(got) != "2" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestManyAtOnce(t *testing.T) {
	server := gitserver.Start(t)
	repo := server.Init("shop")
	mirrors := &gitsource.Mirrors{Dir: t.TempDir()}
	other := &gitsource.Mirrors{Dir: mirrors.Dir} // as another process would have
	var hashes []string
	for i := range 5 {
		hashes = append(hashes, repo.Release("again", "a", fmt.Sprint(i)))
	}
	var wait sync.WaitGroup
	for i := range 20 {
		wait.Go(func() {
			from := mirrors
			if i%4 == 0 {
				from = other
			}
			m, err := from.Open(gitsource.Remote{URL: server.URL("shop")})
			if err != nil {
				t.Error(err)
				return
			}
			hash := hashes[i%5]
			if _, err := follow(m).Fetch(t.Context(), hash, ""); err != nil {
				t.Error(err)
				return
			}
			tree, err := m.Tree(t.Context(), hash)
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := tree.ReadFile("a"); err != nil || string(got) != fmt.Sprint(i%5) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wait.Wait()
}

// TestAFullDisk lets files grow to 64 KiB only, in a process of its own: the kernel then says EFBIG
// where a full disk says ENOSPC.
func TestAFullDisk(t *testing.T) {
	server := gitserver.Start(t)
	repo := server.Init("shop")
	good := repo.Release("good", "a", "1")
	cmd := exec.Command(os.Args[0], "-test.run=^TestAFullDiskChild$")
	cmd.Env = append(os.Environ(), "MIRROR="+t.TempDir(), "REPOSITORY="+server.URL("shop"), "GOOD="+good,
		"NOISE="+repo.Release("noise", "noise", noise(1<<20)))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestAFullDiskChild(t *testing.T) {
	dir := os.Getenv("MIRROR")
	if dir == "" {
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	limit := syscall.Rlimit{Cur: 64 << 10, Max: was.Max}
	m, err := (&gitsource.Mirrors{Dir: dir}).Open(gitsource.Remote{URL: os.Getenv("REPOSITORY")})
	if err != nil {
		t.Fatal(err)
	}
	s := follow(m)
	if _, err := s.Fetch(t.Context(), os.Getenv("GOOD"), ""); err != nil {
		t.Fatal(err)
	}
	before := diskUse(t, dir)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	_, err = s.Fetch(t.Context(), os.Getenv("NOISE"), os.Getenv("GOOD"))
	as[*gitsource.DiskError](t, err)
	if after := diskUse(t, dir); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("on disk before %v, after %v", before, after)
	}
	if got, err := treeOf(t, m, os.Getenv("GOOD")).ReadFile("a"); err != nil || string(got) != "1" {
		t.Errorf("the last good commit: %q, %v", got, err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), os.Getenv("NOISE"), os.Getenv("GOOD")); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}

func TestFilesOnThisMachineRunNoHooks(t *testing.T) {
	server := gitserver.Start(t)
	repo := server.Init("shop")
	hash := repo.Release("first", "a", strings.Repeat("1", 1000))
	marker := filepath.Join(t.TempDir(), "ran")
	repo.Git("--git-dir", server.Dir("shop"), "config", "uploadpack.packObjectsHook", "touch "+marker)
	for name, dir := range map[string]string{"a bare repository": server.Dir("shop"), "a work tree": repo.Dir} {
		t.Run(name, func(t *testing.T) {
			s := follow(open(t, gitsource.Remote{URL: "file://" + dir}))
			if c := fetchTip(t, s); c.Hash != hash {
				t.Errorf("%+v", c)
			}
			next := repo.Release("next", "a", name)
			if c := fetchTip(t, s); c.Hash != next {
				t.Errorf("%+v", c)
			}
			hash = next
			s.Branch = "gone"
			_, err := s.Tip(t.Context())
			as[*gitsource.BranchMissingError](t, err)
		})
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a hook was run")
	}
	_, err := follow(open(t, gitsource.Remote{URL: "file://" + t.TempDir()})).Tip(t.Context())
	as[*gitsource.UnreachableError](t, err)
}
