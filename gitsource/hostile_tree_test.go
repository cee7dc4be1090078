package gitsource_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"testing"

	"github.com/nexus-platform/reconciler/e2e/gitserver"
	"github.com/nexus-platform/reconciler/gitsource"
)

// rawTree stores a tree object as it is given, with a commit on top, and pushes it. Each entry is
// "mode name\x00" and the hash of a blob or tree.
type rawEntry struct{ mode, name, hash string }

func pushRawTree(repo *gitserver.Repo, entries ...rawEntry) (commit string) {
	tree := hashRawTree(repo, entries...)
	commit = repo.Git("commit-tree", "-m", "crafted", tree)
	repo.Git("push", "-q", "--force", "origin", commit+":refs/heads/main")
	return commit
}

func hashRawTree(repo *gitserver.Repo, entries ...rawEntry) string {
	var raw bytes.Buffer
	for _, e := range entries {
		hash, err := hex.DecodeString(e.hash)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(&raw, "%s %s\x00%s", e.mode, e.name, hash)
	}
	return repo.GitInput(raw.String(), "hash-object", "-t", "tree", "-w", "--literally", "--stdin")
}

func crafted(t *testing.T, limits gitsource.Limits, entries func(repo *gitserver.Repo, blob string) []rawEntry) *gitsource.Tree {
	t.Helper()
	server := gitserver.Start(t)
	repo := server.Init("shop")
	blob := repo.GitInput("kind: ConfigMap\n", "hash-object", "-w", "--stdin")
	pushRawTree(repo, entries(repo, blob)...)
	m := openWith(t, gitsource.Remote{URL: server.URL("shop")}, limits)
	return treeOf(t, m, fetchTip(t, follow(m)).Hash)
}

func TestA01A02SymlinksEndInsideTheTree(t *testing.T) {
	links := map[string]string{
		"to an absolute path":              "/etc/passwd",
		"to the process's environment":     "/proc/self/environ",
		"to the service account's token":   "/var/run/secrets/kubernetes.io/serviceaccount/token",
		"above the root":                   "../../etc/passwd",
		"above the root by way of itself":  "../app/../../x",
		"down and further up":              "deep/../../../x",
		"to itself":                        "cm.yaml",
		"through a link above the root":    "outside/etc/passwd",
		"to an empty name followed by up":  ".//..//../x",
		"with a target of 5,000 bytes":     strings.Repeat("a/", 2500),
		"to a file as if it were the root": "plain.yaml/../../../x",
	}
	for name, target := range links {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree := crafted(t, gitsource.Limits{}, func(repo *gitserver.Repo, blob string) []rawEntry {
				link := repo.GitInput(target, "hash-object", "-w", "--stdin")
				up := repo.GitInput("../..", "hash-object", "-w", "--stdin")
				deep := hashRawTree(repo, rawEntry{"100644", "x", blob})
				app := hashRawTree(repo, rawEntry{"120000", "cm.yaml", link}, rawEntry{"40000", "deep", deep},
					rawEntry{"120000", "outside", up}, rawEntry{"100644", "plain.yaml", blob})
				return []rawEntry{{"40000", "app", app}}
			})
			for op, err := range map[string]error{
				"open": second(tree.Open("app/cm.yaml")), "read": second(tree.ReadFile("app/cm.yaml")),
				"stat": second(tree.Stat("app/cm.yaml")), "list": second(tree.ReadDir("app/cm.yaml")), "resolve": second(tree.Resolve("app/cm.yaml")),
			} {
				if name == "to a file as if it were the root" {
					if err == nil {
						t.Errorf("%s went through a file", op)
					}
					continue
				}
				if e := as[*gitsource.LinkError](t, err); !strings.HasPrefix(e.Path, "app/") {
					t.Errorf("%s: the error names %q", op, e.Path)
				}
			}
			if hash, ok := tree.Hash("app/cm.yaml"); ok {
				t.Errorf("the link has the hash %s", hash)
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }

func TestLinksInsideTheTreeAreFollowed(t *testing.T) {
	tree := crafted(t, gitsource.Limits{}, func(repo *gitserver.Repo, blob string) []rawEntry {
		file := repo.GitInput("../base/cm.yaml", "hash-object", "-w", "--stdin")
		dir := repo.GitInput("../base", "hash-object", "-w", "--stdin")
		base := hashRawTree(repo, rawEntry{"100644", "cm.yaml", blob})
		app := hashRawTree(repo, rawEntry{"120000", "all", dir}, rawEntry{"120000", "cm.yaml", file})
		return []rawEntry{{"40000", "app", app}, {"40000", "base", base}}
	})
	for _, name := range []string{"app/cm.yaml", "app/all/cm.yaml"} {
		got, err := tree.ReadFile(name)
		if err != nil || string(got) != "kind: ConfigMap\n" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if at, err := tree.Resolve(name); err != nil || at != "base/cm.yaml" {
			t.Errorf("%s leads to %q, %v", name, at, err)
		}
		direct, _ := tree.Hash("base/cm.yaml")
		if hash, ok := tree.Hash(name); !ok || hash != direct {
			t.Errorf("%s has the hash %q, not %q", name, hash, direct)
		}
	}
	if target, err := tree.ReadLink("app/all"); err != nil || target != "../base" {
		t.Errorf("ReadLink: %q, %v", target, err)
	}
	if info, err := tree.Lstat("app/all"); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("Lstat: %v, %v", info, err)
	}
}

func TestA06HostileNames(t *testing.T) {
	for _, name := range []string{
		".git", ".GIT", ".Git", "git~1", "GIT~1", ".g\u200cit", ".git ", ".git.", ".git::$INDEX_ALLOCATION", `x\.git`, `..\x`,
		"..", ".", "a/../../x", "/etc", "new\nline", "esc\x1b[31m", "\xff\xfe", strings.Repeat("n", 4096),
	} {
		t.Run(fmt.Sprintf("%.20q", name), func(t *testing.T) {
			t.Parallel()
			tree := crafted(t, gitsource.Limits{}, func(_ *gitserver.Repo, blob string) []rawEntry {
				return []rawEntry{{"100644", name, blob}, {"100644", "ok.yaml", blob}}
			})
			as[*gitsource.TreeError](t, second(tree.ReadDir(".")))
			as[*gitsource.TreeError](t, second(tree.ReadFile("ok.yaml")))
		})
	}
	t.Run("the same name twice", func(t *testing.T) {
		tree := crafted(t, gitsource.Limits{}, func(repo *gitserver.Repo, blob string) []rawEntry {
			return []rawEntry{{"100644", "a", blob}, {"40000", "a", hashRawTree(repo)}}
		})
		as[*gitsource.TreeError](t, second(tree.ReadFile("a")))
	})
	t.Run("a name asked for", func(t *testing.T) {
		tree := crafted(t, gitsource.Limits{}, func(_ *gitserver.Repo, blob string) []rawEntry {
			return []rawEntry{{"100644", "a", blob}}
		})
		for _, name := range []string{"../a", "/a", "./a", "x/../a", "a/", "", "a\x00", "a/b"} {
			if _, err := tree.ReadFile(name); err == nil {
				t.Errorf("%q was read", name)
			}
		}
	})
}

func TestA08SubmodulesAreNeverFetched(t *testing.T) {
	server := gitserver.Start(t)
	repo := server.Init("shop")
	repo.Write(".gitmodules", "[submodule \"../../hooks\"]\n\tpath = sub\n\turl = ext::sh -c id\n[submodule \"b\"]\n\tpath = ../../x\n\turl = http://169.254.169.254/\n")
	repo.Write("ok.yaml", "kind: ConfigMap\n")
	repo.Git("add", "-A")
	repo.Git("update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("1", 40)+",sub")
	repo.Git("commit", "-q", "-m", "with submodules")
	repo.Push()
	m := open(t, gitsource.Remote{URL: server.URL("shop")})
	tree := treeOf(t, m, fetchTip(t, follow(m)).Hash)
	for _, name := range []string{"sub", "sub/kustomization.yaml"} {
		if e := as[*gitsource.SubmoduleError](t, second(tree.ReadFile(name))); e.Path != "sub" {
			t.Errorf("the error names %q", e.Path)
		}
	}
	if _, err := tree.ReadFile("ok.yaml"); err != nil {
		t.Error(err)
	}
	if _, err := tree.ReadDir("."); err != nil {
		t.Error(err)
	}
}

func TestA09LFSPointer(t *testing.T) {
	server := gitserver.Start(t)
	server.Init("shop").Release("lfs", "big.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:"+strings.Repeat("0", 64)+"\nsize 12345\n")
	m := open(t, gitsource.Remote{URL: server.URL("shop")})
	err := second(treeOf(t, m, fetchTip(t, follow(m)).Hash).ReadFile("big.yaml"))
	as[*gitsource.LFSError](t, err)
	if !strings.Contains(err.Error(), "LFS pointer") || !strings.Contains(err.Error(), "big.yaml") {
		t.Error(err)
	}
}

func TestA11SizesOfTheTree(t *testing.T) {
	server := gitserver.Start(t)
	repo := server.Init("shop")
	repo.Write("large.yaml", strings.Repeat("x", 5<<20))
	repo.Write("fits.yaml", strings.Repeat("x", 900<<10))
	repo.Write("fits2.yaml", strings.Repeat("y", 900<<10))
	blob := repo.GitInput("x", "hash-object", "-w", "--stdin")
	var many, bomb []rawEntry
	for i := range 100_000 {
		many = append(many, rawEntry{"100644", fmt.Sprintf("f%06d", i), blob})
	}
	for i := range 10 {
		bomb = append(bomb, rawEntry{"40000", fmt.Sprintf("b%d", i), hashRawTree(repo, rawEntry{"100644", "x", blob})})
	}
	inner := hashRawTree(repo, bomb...)
	for range 8 { // 10^9 files in nine objects
		var level []rawEntry
		for i := range 10 {
			level = append(level, rawEntry{"40000", fmt.Sprintf("b%d", i), inner})
		}
		inner = hashRawTree(repo, level...)
	}
	repo.Git("add", "-A")
	repo.Git("update-index", "--add", "--cacheinfo", "100644,"+blob+",nested"+strings.Repeat("/d", 1000)+"/x")
	repo.Git("read-tree", "--prefix=many/", hashRawTree(repo, many...))
	tree := repo.Git("write-tree")
	with := repo.GitInput(repo.Git("ls-tree", tree)+"\n040000 tree "+inner+"\tbomb\n", "mktree")
	repo.Git("push", "-q", "origin", repo.Git("commit-tree", "-m", "large", with)+":refs/heads/main")

	m := openWith(t, gitsource.Remote{URL: server.URL("shop")}, gitsource.Limits{FileBytes: 1 << 20, TreeBytes: 1 << 20, Files: 20_000})
	hash := fetchTip(t, follow(m)).Hash
	limit := func(err error) string { return as[*gitsource.LimitError](t, err).Limit }
	files := treeOf(t, m, hash)
	if got := limit(second(files.ReadFile("large.yaml"))); got != "FileBytes" {
		t.Errorf("a large file is over %s", got)
	}
	for range 3 { // a file counts once
		if _, err := files.ReadFile("fits.yaml"); err != nil {
			t.Fatal(err)
		}
	}
	if got := limit(second(files.ReadFile("fits2.yaml"))); got != "TreeBytes" {
		t.Errorf("two files are over %s", got)
	}
	if got := limit(second(files.Stat("nested" + strings.Repeat("/d", 500)))); got != "Depth" {
		t.Errorf("500 levels are over %s", got)
	}
	if got := limit(second(files.ReadDir("many"))); got != "Files" {
		t.Errorf("100,000 files are over %s", got)
	}
	err := fs.WalkDir(treeOf(t, m, hash), "bomb", func(_ string, _ fs.DirEntry, err error) error { return err })
	if got := limit(err); got != "Files" {
		t.Errorf("10^9 files are over %s", got)
	}
}

func TestA12BombsStopTheFetchAndLeaveNothing(t *testing.T) {
	const over = 64 << 20
	bombs := map[string]struct {
		limits gitsource.Limits
		fill   func(*gitserver.Repo)
		limit  string
	}{
		"a blob of zeros": {gitsource.Limits{ObjectBytes: 1 << 20}, func(r *gitserver.Repo) {
			r.Release("bomb", "zeros", strings.Repeat("\x00", over))
		}, "ObjectBytes"},
		"more packed bytes than allowed": {gitsource.Limits{FetchBytes: 64 << 10}, func(r *gitserver.Repo) {
			r.Release("noise", "noise", noise(1<<20))
		}, "FetchBytes"},
		"more objects than allowed": {gitsource.Limits{Objects: 5}, func(r *gitserver.Repo) {
			for i := range 5 {
				r.Release("one more", "f", fmt.Sprint(i))
			}
		}, "Objects"},
	}
	for name, bomb := range bombs {
		t.Run(name, func(t *testing.T) {
			server := gitserver.Start(t)
			repo := server.Init("shop")
			good := repo.Release("good", "a", "1")
			dir := t.TempDir()
			m, err := (&gitsource.Mirrors{Dir: dir, Limits: bomb.limits}).Open(gitsource.Remote{URL: server.URL("shop")})
			if err != nil {
				t.Fatal(err)
			}
			s := follow(m)
			fetchTip(t, s)
			before := diskUse(t, dir)
			bomb.fill(repo)
			hash, err := s.Tip(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var was, is runtime.MemStats
			runtime.ReadMemStats(&was)
			_, err = s.Fetch(t.Context(), hash, good)
			runtime.ReadMemStats(&is)
			if got := as[*gitsource.LimitError](t, err).Limit; got != bomb.limit {
				t.Errorf("it is over %s, not %s", got, bomb.limit)
			}
			if grown := is.TotalAlloc - was.TotalAlloc; grown > over/4 {
				t.Errorf("the fetch allocated %d bytes", grown)
			}
			after := diskUse(t, dir)
			if fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("on disk before %v, after %v", before, after)
			}
			if _, err := s.Fetch(t.Context(), good, good); err != nil {
				t.Errorf("the last good commit: %v", err)
			}
		})
	}
}

// noise is text that does not compress.
func noise(n int) string {
	out, x := make([]byte, n), uint64(88172645463325252)
	for i := range out {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		out[i] = byte(x)
	}
	return string(out)
}

func TestA15Modes(t *testing.T) {
	for _, mode := range []string{"60000", "10000", "20000", "140000", "100000", "0", "777777"} {
		t.Run("mode "+mode, func(t *testing.T) {
			t.Parallel()
			tree := crafted(t, gitsource.Limits{}, func(_ *gitserver.Repo, blob string) []rawEntry {
				return []rawEntry{{mode, "device", blob}}
			})
			e := as[*gitsource.TreeError](t, second(tree.ReadFile("device")))
			if e.Path != "device" {
				t.Errorf("the error names %q", e.Path)
			}
		})
	}
	t.Run("a gitlink without .gitmodules", func(t *testing.T) {
		tree := crafted(t, gitsource.Limits{}, func(_ *gitserver.Repo, blob string) []rawEntry {
			return []rawEntry{{"160000", "link", blob}}
		})
		as[*gitsource.SubmoduleError](t, second(tree.ReadFile("link")))
	})
	t.Run("an executable is a file", func(t *testing.T) {
		tree := crafted(t, gitsource.Limits{}, func(_ *gitserver.Repo, blob string) []rawEntry {
			return []rawEntry{{"100755", "run", blob}}
		})
		if got, err := tree.ReadFile("run"); err != nil || string(got) != "kind: ConfigMap\n" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestA16AnEmptyTreeAndAVanishedPath(t *testing.T) {
	tree := crafted(t, gitsource.Limits{}, func(*gitserver.Repo, string) []rawEntry { return nil })
	list, err := tree.ReadDir(".")
	if err != nil || len(list) != 0 {
		t.Errorf("the root of an empty tree: %v, %v", list, err)
	}
	if _, err := tree.Stat("overlays/production"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a vanished path: %v", err)
	}
}
