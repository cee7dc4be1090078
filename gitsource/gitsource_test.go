package gitsource_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nexus-platform/reconciler/e2e/gitserver"
	"github.com/nexus-platform/reconciler/gitsource"
)

// canary stands in every credential and must never be seen again.
const canary = "CANARY-5e1f"

// quick are limits under which a hostile server is given up on soon.
func quick() gitsource.Limits {
	return gitsource.Limits{Phase: 300 * time.Millisecond, Total: 20 * time.Second}
}

func open(t *testing.T, r gitsource.Remote) *gitsource.Mirror {
	t.Helper()
	return openWith(t, r, gitsource.Limits{})
}

func openWith(t *testing.T, r gitsource.Remote, limits gitsource.Limits) *gitsource.Mirror {
	t.Helper()
	m, err := (&gitsource.Mirrors{Dir: t.TempDir(), Limits: limits}).Open(r)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func follow(m *gitsource.Mirror) *gitsource.Source {
	return &gitsource.Source{Mirror: m, Branch: "main"}
}

// fetchTip asks for the tip and fetches it.
func fetchTip(t *testing.T, s *gitsource.Source) gitsource.Commit {
	t.Helper()
	hash, err := s.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Fetch(t.Context(), hash, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func treeOf(t *testing.T, m *gitsource.Mirror, hash string) *gitsource.Tree {
	t.Helper()
	tree, err := m.Tree(t.Context(), hash)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// as demands that err holds an E, and no canary.
func as[E error](t *testing.T, err error) E {
	t.Helper()
	var e E
	if !errors.As(err, &e) {
		t.Fatalf("got %T %v, want a %T", err, err, e)
	}
	if strings.Contains(err.Error(), canary) {
		t.Errorf("the error holds a secret: %v", err)
	}
	return e
}

// diskUse lists the files under a directory with their sizes.
func diskUse(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	use := map[string]int64{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, ".lock") {
			return err
		}
		info, err := d.Info()
		if err == nil {
			use[name] = info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return use
}

func TestFollowsABranchAndShowsItsTree(t *testing.T) {
	for _, protocol := range []string{"version 2", "version 0"} {
		t.Run(protocol, func(t *testing.T) {
			server := gitserver.Start(t)
			if protocol == "version 0" {
				server.OnlyV0()
			}
			repo := server.Init("shop")
			first := repo.Release("first", "app/cm.yaml", "one\n", "app/deep/x.yaml", "x\n")
			m := open(t, gitsource.Remote{URL: server.URL("shop")})
			s := follow(m)
			c := fetchTip(t, s)
			want := gitsource.Commit{Hash: first, Author: "Jane Doe", AuthorEmail: "jane@example.com", Subject: "first", When: c.When}
			if diff := cmp.Diff(want, c); diff != "" {
				t.Error(diff)
			}
			if time.Since(c.When) > time.Hour {
				t.Errorf("the commit's time is %s", c.When)
			}
			second := repo.Release("second\n\nbody", "app/cm.yaml", "two\n")
			c = fetchTip(t, s)
			want = gitsource.Commit{Hash: second, Author: "Jane Doe", AuthorEmail: "jane@example.com", Subject: "second", When: c.When, Parents: []string{first}}
			if diff := cmp.Diff(want, c); diff != "" {
				t.Error(diff)
			}
			for hash, content := range map[string]string{first: "one\n", second: "two\n"} {
				got, err := treeOf(t, m, hash).ReadFile("app/cm.yaml")
				if err != nil || string(got) != content {
					t.Errorf("at %s: %q, %v", hash, got, err)
				}
			}
			if err := fstest.TestFS(treeOf(t, m, second), "app/cm.yaml", "app/deep/x.yaml"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestATipCostsOneRequestAndAFetchOnlyIfItMoved(t *testing.T) {
	server := gitserver.Start(t)
	repo := server.Init("shop")
	repo.Release("first", "a", "1")
	s := follow(open(t, gitsource.Remote{URL: server.URL("shop")}))
	c := fetchTip(t, s)
	before := server.Requests()
	if _, err := s.Tip(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := server.Requests() - before; n != 1 {
		t.Errorf("a poll cost %d requests", n)
	}
	if _, err := s.Fetch(t.Context(), c.Hash, c.Hash); err != nil {
		t.Fatal(err)
	}
	if n := server.Requests() - before; n != 1 {
		t.Errorf("fetching what is there cost %d requests", n-1)
	}
	repo.Release("second", "a", "2")
	before = server.Requests()
	fetchTip(t, s)
	if n := server.Requests() - before; n != 2 {
		t.Errorf("a push cost %d requests", n)
	}
}

func TestEnvironmentsOfOneMirrorShareAnAnswer(t *testing.T) {
	server := gitserver.Start(t)
	server.Init("shop").Release("first", "a", "1")
	m := open(t, gitsource.Remote{URL: server.URL("shop")})
	fetchTip(t, follow(m))
	before := server.Requests()
	done := make(chan error)
	for range 20 {
		go func() {
			_, err := (&gitsource.Source{Mirror: m, Branch: "main", MaxAge: time.Minute}).Tip(t.Context())
			done <- err
		}()
	}
	for range 20 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := server.Requests() - before; n != 0 {
		t.Errorf("20 environments asked %d times within a minute of an answer", n)
	}
}

func TestAMirrorIsSharedOnlyByEqualCredentials(t *testing.T) {
	mirrors := &gitsource.Mirrors{Dir: t.TempDir()}
	get := func(url, credential string) *gitsource.Mirror {
		m, err := mirrors.Open(gitsource.Remote{URL: url, Credential: credential})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	a := get("https://git.example.com/o/r.git", "shop/git")
	if get("https://GIT.example.com/o/r.git/", "shop/git") != a {
		t.Error("one repository in two spellings has two mirrors")
	}
	if get("https://git.example.com/o/r.git", "other/git") == a {
		t.Error("a mirror is shared between two credentials")
	}
	if get("https://git.example.com/o/s.git", "shop/git") == a {
		t.Error("two repositories share a mirror")
	}
}

func TestAMirrorSurvivesARestartAndWhatAKillLeft(t *testing.T) {
	server := gitserver.Start(t)
	hash := server.Init("shop").Release("first", "a", "1")
	dir := t.TempDir()
	m, err := (&gitsource.Mirrors{Dir: dir}).Open(gitsource.Remote{URL: server.URL("shop")})
	if err != nil {
		t.Fatal(err)
	}
	fetchTip(t, follow(m))
	before := server.Requests()
	m, err = (&gitsource.Mirrors{Dir: dir}).Open(gitsource.Remote{URL: server.URL("shop")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := follow(m).Fetch(t.Context(), hash, hash); err != nil {
		t.Fatal(err)
	}
	if n := server.Requests() - before; n != 0 {
		t.Errorf("after a restart %d requests fetched what was there", n)
	}
	packs, err := filepath.Glob(filepath.Join(dir, "*", "objects", "pack"))
	if err != nil || len(packs) != 1 {
		t.Fatal(packs, err)
	}
	for _, name := range []string{"tmp_pack_123", "pack-0123.idx"} {
		if err := os.WriteFile(filepath.Join(packs[0], name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server.Init("other") // the server goes on
	if _, err := follow(m).Fetch(context.WithoutCancel(t.Context()), strings.Repeat("1", 40), ""); err == nil {
		t.Fatal("a commit that does not exist was fetched")
	}
	for name := range diskUse(t, packs[0]) {
		if strings.Contains(name, "tmp_") || strings.Contains(name, "pack-0123") {
			t.Errorf("%s is still there", name)
		}
	}
}

func TestAServerThatClosesIdleConnectionsIsAskedAgain(t *testing.T) {
	server := gitserver.Start(t)
	hash := server.Init("shop").Release("first", "a", "1")
	s := follow(open(t, gitsource.Remote{URL: server.URL("shop")}))
	for range 20 {
		if got, err := s.Tip(t.Context()); err != nil || got != hash {
			t.Fatalf("%s, %v", got, err)
		}
		server.CloseConnections()
	}
}
