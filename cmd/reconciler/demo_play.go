package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
)

// patience of every step; a step that takes longer has failed.
const demoPatience = 3 * time.Minute

// play runs the steps in order. Each leaves the environments healthy for the next.
func (s *stage) play(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		s.firstRelease, s.goodChange, s.badManifest, s.crashLoop, s.editByHand, s.halfDeleted, s.killed,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("step %d: %w", s.step, err)
		}
	}
	fmt.Fprintf(s.w, "\n%s\n", s.paint.green("All steps did what they should."))
	return nil
}

func (s *stage) firstRelease(ctx context.Context) error {
	s.title("The first release goes through all phases")
	for _, env := range demoEnvironments {
		rel, err := s.outcome(ctx, env, "", v1alpha1.Succeeded, env == "staging")
		if err != nil {
			return err
		}
		if len(rel.Status.Phases) != 8 {
			return fmt.Errorf("%s went through %d phases, not 8", rel.Name, len(rel.Status.Phases))
		}
		s.passed("%s: release %d of %s, %d objects, in %s", env, rel.Spec.Number, rel.Status.ShortCommit, rel.Status.Changes["create"], took(*rel))
	}
	return nil
}

func (s *stage) goodChange(ctx context.Context) error {
	s.title("A good change: a new backend for staging alone")
	if err := s.repo.edit("overlays/staging/kustomization.yaml", "patches:", "images:\n  - name: nexus-platform/backend\n    newTag: 1.1.0\npatches:"); err != nil {
		return err
	}
	pushed := time.Now()
	commit, err := s.repo.push(ctx, "backend 1.1.0 for staging")
	if err != nil {
		return err
	}
	rel, err := s.outcome(ctx, "staging", commit, v1alpha1.Succeeded, true)
	if err != nil {
		return err
	}
	if image, err := s.backendImage(ctx, "staging"); err != nil || image != "nexus-platform/backend:1.1.0" {
		return fmt.Errorf("the backend of staging runs %s: %w", image, err)
	}
	env, err := s.get(ctx, "production")
	if err != nil {
		return err
	}
	if env.Status.Release != 1 {
		return fmt.Errorf("production made release %d, although nothing of it changed", env.Status.Release)
	}
	s.passed("staging runs 1.1.0, %s after the push began (%s to see it); production made no release", since(pushed), rel.Status.StartedAt.Sub(pushed).Round(time.Second))
	return nil
}

func (s *stage) badManifest(ctx context.Context) error {
	s.title("A manifest with a mistake is refused before the first write")
	before, err := s.versions(ctx, "staging")
	if err != nil {
		return err
	}
	if err := s.repo.edit("base/backend/backend.yaml", "  replicas: 2", "  replicaz: 2"); err != nil {
		return err
	}
	commit, err := s.repo.push(ctx, "a typing error")
	if err != nil {
		return err
	}
	rel, err := s.outcome(ctx, "staging", commit, v1alpha1.Refused, false)
	if err != nil {
		return err
	}
	after, err := s.versions(ctx, "staging")
	if err != nil {
		return err
	}
	if before != after {
		return fmt.Errorf("objects were written although the commit was refused:\n%s\nthen\n%s", before, after)
	}
	s.passed("refused: %s", firstLine(rel.Status.Findings[0], false))
	s.passed("no object of staging changed")
	return s.repo.undo(ctx)
}

func (s *stage) crashLoop(ctx context.Context) error {
	s.title("An image that crash-loops is undone")
	if err := s.repo.edit("overlays/staging/kustomization.yaml", "newTag: 1.1.0", "newTag: crashloop"); err != nil {
		return err
	}
	commit, err := s.repo.push(ctx, "backend crashloop: a release that cannot work")
	if err != nil {
		return err
	}
	rel, err := s.outcome(ctx, "staging", commit, v1alpha1.Reverted, true)
	if err != nil {
		return err
	}
	if image, err := s.backendImage(ctx, "staging"); err != nil || image != "nexus-platform/backend:1.1.0" {
		return fmt.Errorf("the backend of staging runs %s after the undo: %w", image, err)
	}
	if err := s.serving(ctx, "staging"); err != nil {
		return err
	}
	s.passed("back on the last good commit: %s", firstLine(rel.Status.Message, false))
	s.passed("from the begin of the release to the last good state serving: %s", took(*rel))
	return s.repo.undo(ctx)
}

func (s *stage) editByHand(ctx context.Context) error {
	s.title("Somebody edits an object by hand")
	if err := s.settled(ctx, "staging"); err != nil {
		return err
	}
	d := &appsv1.Deployment{}
	key := client.ObjectKey{Namespace: demoNamespace("staging"), Name: "backend"}
	if err := s.client.Get(ctx, key, d); err != nil {
		return err
	}
	edited := time.Now()
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":7}}`))
	if err := s.client.Patch(ctx, d, patch, client.FieldOwner("kubectl-edit")); err != nil {
		return err
	}
	s.say("kubectl-edit set the replicas of Deployment/backend to 7")
	err := s.until(ctx, "the replicas to be 2 again", func() (bool, error) {
		err := s.client.Get(ctx, key, d)
		return err == nil && *d.Spec.Replicas == 2, err
	})
	if err != nil {
		return err
	}
	healed := time.Since(edited)
	var seen *v1alpha1.Drift
	err = s.until(ctx, "the drift to be recorded", func() (bool, error) {
		env, err := s.get(ctx, "staging")
		if err != nil {
			return false, err
		}
		for i, drift := range env.Status.Drift {
			if drift.Object == "Deployment/"+key.Namespace+"/backend" && drift.Manager == "kubectl-edit" {
				seen = &env.Status.Drift[i]
			}
		}
		return seen != nil, nil
	})
	if err != nil {
		return err
	}
	s.passed("healed after %s; %s was %s by %s: %s", healed.Round(time.Millisecond), seen.Object, seen.Verb, seen.Manager, strings.Join(seen.Fields, ", "))
	return nil
}

func (s *stage) halfDeleted(ctx context.Context) error {
	s.title("Half of the repository is deleted: the prune guard stops it")
	if err := s.settled(ctx, "staging"); err != nil {
		return err
	}
	if err := s.repo.edit("base/kustomization.yaml", "  - redis\n  - backend\n", ""); err != nil {
		return err
	}
	if err := s.repo.edit("base/kustomization.yaml", "  - monitoring\n  - networking\n", ""); err != nil {
		return err
	}
	for _, dir := range []string{"redis", "backend", "monitoring", "networking"} {
		if err := os.RemoveAll(filepath.Join(s.repo.work, "base", dir)); err != nil {
			return err
		}
	}
	for _, env := range demoEnvironments { // patches of what is gone would not render
		text := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: " + demoNamespace(env) + "\nresources: [../../base]\n"
		if err := os.WriteFile(filepath.Join(s.repo.work, "overlays", env, "kustomization.yaml"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	commit, err := s.repo.push(ctx, "half of it is gone")
	if err != nil {
		return err
	}
	rel, err := s.outcome(ctx, "staging", commit, v1alpha1.Refused, false)
	if err != nil {
		return err
	}
	if rel.Status.Reason != "PruneGuard" {
		return fmt.Errorf("refused for %s (%v), not by the prune guard", rel.Status.Reason, rel.Status.Findings)
	}
	if err := s.serving(ctx, "staging"); err != nil {
		return err
	}
	s.passed("refused: %s", rel.Status.Findings[0])
	return s.repo.undo(ctx)
}

func (s *stage) killed(ctx context.Context) error {
	s.title("The daemon is killed in the middle of a release")
	if err := s.settled(ctx, "staging"); err != nil {
		return err
	}
	if err := s.repo.edit("overlays/staging/kustomization.yaml", "newTag: 1.1.0", "newTag: 1.2.0"); err != nil {
		return err
	}
	commit, err := s.repo.push(ctx, "backend 1.2.0")
	if err != nil {
		return err
	}
	err = s.until(ctx, "the release to be in the middle", func() (bool, error) {
		image, err := s.backendImage(ctx, "staging")
		return image == "nexus-platform/backend:1.2.0", err
	})
	if err != nil {
		return err
	}
	if err := s.daemon.kill(); err != nil {
		return err
	}
	s.say("killed it with SIGKILL while the new backend was rolling out; starting it again")
	if err := s.start(ctx); err != nil {
		return err
	}
	rel, err := s.outcome(ctx, "staging", commit, v1alpha1.Succeeded, false)
	if err != nil {
		return err
	}
	if err := s.serving(ctx, "staging"); err != nil {
		return err
	}
	s.passed("release %d was taken over and finished: %s", rel.Spec.Number, rel.Status.Message)
	return nil
}

func since(t time.Time) time.Duration { return time.Since(t).Round(100 * time.Millisecond) }

// until waits for a condition, looking often; the step's patience bounds it.
func (s *stage) until(ctx context.Context, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waited %s for %s", demoPatience, what), err)
		case <-tick.C:
		}
	}
}
