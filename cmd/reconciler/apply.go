package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/controller"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/reconcile"
)

func newApply(o *options) *cobra.Command {
	var (
		file, commit, cache string
		dryRun              bool
	)
	cmd := &cobra.Command{
		Use:   "apply ENV | apply -f FILE",
		Short: "Release a commit now and follow it until its outcome",
		Long: `With an Environment in the cluster, asks the daemon for the release and follows it. With -f, for
an Environment that is only a file, releases by itself; stopped in the middle, the next apply goes on.

Exit codes: 0 released (or nothing to do), 1 error, 3 reverted, 4 refused, 5 halted.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.completeEnv,
	}
	cmd.Flags().StringVarP(&file, "filename", "f", "", "file with an Environment, where it is not in the cluster")
	cmd.Flags().StringVar(&commit, "commit", "", "full hash of a commit; default: the tip of the branch")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show the plan and stop, as the verb plan does")
	cmd.Flags().StringVar(&cache, "cache-dir", "", "folder of the Git mirrors; default: in the user's cache folder")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		env, cfg, c, err := o.environment(ctx, first(args), file)
		if err != nil {
			return err
		}
		if file == "" && !dryRun {
			id, err := ask(ctx, c, env, v1alpha1.Request{Verb: v1alpha1.VerbApply, Commit: commit})
			if err != nil {
				return err
			}
			return follow(ctx, cmd.OutOrStdout(), c, env, id)
		}
		assembly, err := o.assembly(cfg, cache, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		if dryRun {
			return planOnce(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), assembly, env, commit)
		}
		return applyHere(ctx, cmd.OutOrStdout(), assembly, env, commit)
	}
	return cmd
}

func planOnce(ctx context.Context, out, errOut io.Writer, assembly *controller.Assembly, env *v1alpha1.Environment, commit string) error {
	a, err := assembly.Assemble(ctx, env, func() {}, nil)
	if err != nil {
		return err
	}
	defer a.Close()
	plan, err := a.Plan(ctx, commit)
	var refused *reconcile.RefusedError
	if errors.As(err, &refused) {
		_ = refusal(errOut, refused)
		return exitRefused
	}
	if err != nil {
		return err
	}
	return printPlan(out, plan)
}

// applyHere makes passes until the environment rests, and tells each step.
func applyHere(ctx context.Context, w io.Writer, assembly *controller.Assembly, env *v1alpha1.Environment, commit string) error {
	bell := make(chan struct{}, 1)
	n := &narrator{w: w, paint: painter(w)}
	a, err := assembly.Assemble(ctx, env, func() {
		select {
		case bell <- struct{}{}:
		default:
		}
	}, n.tell)
	if err != nil {
		return err
	}
	defer a.Close()
	askFor := reconcile.Ask{Request: &v1alpha1.Request{ID: "apply", Verb: v1alpha1.VerbApply, Commit: commit, By: whoami()}}
	taken := false // our request has become a release, or was answered
	for {
		res, err := a.Pass(ctx, askFor)
		if res.Request != "" && !taken {
			taken = true
			n.answer = res.Answer
		}
		var halted *reconcile.HaltedError
		switch {
		case errors.As(err, &halted):
			fmt.Fprintln(w, n.paint.red(err.Error()))
			return exitHalted
		case ctx.Err() != nil:
			return fmt.Errorf("stopped; the release stays open, and the next `reconciler apply -f` goes on with it")
		case err != nil && reconcile.Judge(err) == reconcile.Fail:
			return err
		case err != nil:
			fmt.Fprintf(w, "  %s %v; trying again\n", n.paint.yellow("!"), err)
			res.After = time.Second
		case res.TipErr != nil:
			return res.TipErr
		case res.Head.State == journal.Idle && taken:
			return n.outcome()
		case res.Head.State == journal.Idle: // an open release of an earlier run was finished first
			n.last = nil
			continue
		}
		if err := pause(ctx, bell, res.After); err != nil {
			continue // the next pass says that we were stopped
		}
	}
}

// pause waits for a change in the cluster, or for the time that the pass asked for.
func pause(ctx context.Context, bell <-chan struct{}, after time.Duration) error {
	if after <= 0 {
		after = 5 * time.Second
	}
	t := time.NewTimer(after)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-bell:
	case <-t.C:
	}
	return nil
}

// narrator writes the events of a reconciler for a person, a line each.
type narrator struct {
	w       io.Writer
	paint   paint
	last    *reconcile.ReleaseInfo
	waiting string
	answer  string
}

func (n *narrator) tell(e reconcile.Event) {
	switch e.Kind {
	case reconcile.EventDetected:
		fmt.Fprintf(n.w, "proving %.10s\n", e.Release.Commit)
	case reconcile.EventBegan:
		fmt.Fprintf(n.w, "release %d of %.10s %s\n", e.Release.Number, e.Release.Commit, n.paint.dim(e.Release.Subject))
	case reconcile.EventPhase:
		fmt.Fprintf(n.w, "  %s %s\n", n.paint.cyan("▸"), e.Phase)
	case reconcile.EventApplied:
		fmt.Fprintf(n.w, "    %-8s %s\n", e.Message, e.Object)
	case reconcile.EventWaiting:
		if e.Waiting[0] != n.waiting && e.Phase != object.Verification {
			n.waiting = e.Waiting[0]
			fmt.Fprintf(n.w, "    waits for %s\n", n.paint.dim(n.waiting))
		}
	case reconcile.EventAborting:
		fmt.Fprintf(n.w, "  %s undoing: %s\n", n.paint.yellow("!"), e.Message)
	case reconcile.EventDecided:
		fmt.Fprintf(n.w, "  %s decided\n", n.paint.green("✓"))
	case reconcile.EventEnded:
		n.last = e.Release
	case reconcile.EventRebuilt:
		fmt.Fprintf(n.w, "  %s %s\n", n.paint.yellow("!"), e.Message)
	case reconcile.EventDrift:
		fmt.Fprintf(n.w, "  drift: %s was %s by %s (%s)\n", e.Drift.Object, e.Drift.Verb, e.Drift.Manager, e.Drift.Action)
	}
}

func (n *narrator) outcome() error {
	if n.last == nil {
		fmt.Fprintln(n.w, n.answer)
		return nil
	}
	line := fmt.Sprintf("%s: %s", n.last.Outcome, n.last.Message)
	if n.last.Outcome == v1alpha1.Succeeded {
		fmt.Fprintln(n.w, n.paint.green("✓ "+line))
		return nil
	}
	fmt.Fprintln(n.w, n.paint.red("✗ "+line))
	for _, f := range n.last.Findings {
		fmt.Fprintln(n.w, "  "+f)
	}
	switch n.last.Outcome {
	case v1alpha1.Refused:
		return exitRefused
	case v1alpha1.Halted:
		return exitHalted
	}
	return exitReverted
}
