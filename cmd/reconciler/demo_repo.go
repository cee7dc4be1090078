package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/nexus-platform/reconciler/examples"
)

// configRepo is a bare repository with a working copy beside it, made of the example.
type configRepo struct {
	bare, work string
}

func newConfigRepo(ctx context.Context, dir string) (*configRepo, error) {
	r := &configRepo{bare: filepath.Join(dir, "config.git"), work: filepath.Join(dir, "work")}
	if err := os.MkdirAll(r.work, 0o755); err != nil {
		return nil, err
	}
	platform, err := fs.Sub(examples.Platform, "nexus-platform")
	if err != nil {
		return nil, err
	}
	if err := os.CopyFS(r.work, platform); err != nil {
		return nil, err
	}
	if err := git(ctx, dir, "init", "--quiet", "--bare", "--initial-branch=main", r.bare); err != nil {
		return nil, err
	}
	if err := git(ctx, r.work, "init", "--quiet", "--initial-branch=main"); err != nil {
		return nil, err
	}
	if err := git(ctx, r.work, "remote", "add", "origin", r.bare); err != nil {
		return nil, err
	}
	// Shorter than anybody would want in production: a demo should not take long.
	for _, env := range []string{"staging", "production"} {
		err := r.edit("overlays/"+env+"/release.yaml", "settle: 5s", "settle: 1s")
		if err != nil {
			return nil, err
		}
	}
	_, err = r.push(ctx, "The platform, as the example has it")
	return r, err
}

func (r *configRepo) url() string { return "file://" + filepath.ToSlash(r.bare) }

// edit replaces text in a file; the text must be there.
func (r *configRepo) edit(path, old, text string) error {
	file := filepath.Join(r.work, path)
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !strings.Contains(string(b), old) {
		return fmt.Errorf("%s does not hold %q", path, old)
	}
	return os.WriteFile(file, []byte(strings.ReplaceAll(string(b), old, text)), 0o644)
}

// push commits everything and returns the hash.
func (r *configRepo) push(ctx context.Context, message string) (string, error) {
	if err := git(ctx, r.work, "add", "--all"); err != nil {
		return "", err
	}
	if err := git(ctx, r.work, "commit", "--quiet", "--message", message); err != nil {
		return "", err
	}
	if err := git(ctx, r.work, "push", "--quiet", "origin", "main"); err != nil {
		return "", err
	}
	out, err := gitCommand(ctx, r.work, "rev-parse", "HEAD").Output()
	return strings.TrimSpace(string(out)), err
}

// undo takes the newest commit back by a new one.
func (r *configRepo) undo(ctx context.Context) error {
	if err := git(ctx, r.work, "revert", "--no-edit", "HEAD"); err != nil {
		return err
	}
	return git(ctx, r.work, "push", "--quiet", "origin", "main")
}

func gitCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	// The person's own settings (signing, hooks, templates) stay out of it.
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Demo", "GIT_AUTHOR_EMAIL=demo@example.com", "GIT_COMMITTER_NAME=Demo", "GIT_COMMITTER_EMAIL=demo@example.com")
	return cmd
}

func git(ctx context.Context, dir string, args ...string) error {
	if out, err := gitCommand(ctx, dir, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}
