package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/reconcile"
)

func newPlan(o *options) *cobra.Command {
	var (
		out                 format
		file, commit, cache string
	)
	cmd := &cobra.Command{
		Use:   "plan ENV | plan -f FILE",
		Short: "Show what a release would do, field by field",
		Long: `Renders the tip of the branch (or --commit), checks it, asks the API server to
judge every object that would change by a dry-run, and shows what a release would do. Nothing is written.

Exit codes: 0 no changes, 1 changes, 2 error or refused.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.completeEnv,
	}
	out.bind(cmd)
	cmd.Flags().StringVarP(&file, "filename", "f", "", "file with an Environment, where it is not in the cluster")
	cmd.Flags().StringVar(&commit, "commit", "", "full hash of a commit; default: the tip of the branch")
	cmd.Flags().StringVar(&cache, "cache-dir", "", "folder of the Git mirrors; default: in the user's cache folder")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		env, cfg, _, err := o.environment(ctx, first(args), file)
		if err != nil {
			return err
		}
		assembly, err := o.assembly(cfg, cache, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		a, err := assembly.Assemble(ctx, env, func() {}, nil)
		if err != nil {
			return err
		}
		defer a.Close()
		plan, err := a.Plan(ctx, commit)
		var refused *reconcile.RefusedError
		if errors.As(err, &refused) {
			return refusal(cmd.ErrOrStderr(), refused)
		}
		if err != nil {
			return err
		}
		if err := out.print(cmd.OutOrStdout(), plan, func(w io.Writer) error { return printPlan(w, plan) }); err != nil {
			return err
		}
		if !plan.Empty() {
			return exitChanges
		}
		return nil
	}
	return cmd
}

// refusal prints every finding.
func refusal(w io.Writer, r *reconcile.RefusedError) error {
	p := painter(w)
	fmt.Fprintf(w, "%s: nothing would be written\n", p.red("Refused: "+r.Reason))
	for _, f := range r.Findings {
		fmt.Fprintln(w, "  "+p.red("✗")+" "+f)
	}
	return exitCode(2)
}

// printPlan writes a plan grouped by phase, with each changed field.
func printPlan(w io.Writer, plan *reconcile.Plan) error {
	p := painter(w)
	base := "nothing"
	if plan.Base != "" {
		base = plan.Base[:10]
	}
	fmt.Fprintf(w, "%s %s: %s -> %s\n", p.bold("Plan for"), p.bold(plan.Environment), base, p.bold(plan.Commit[:10]))
	var phase object.Phase
	for _, a := range plan.Actions {
		last := (a.Do == reconcile.Prune || a.Do == reconcile.Keep) && !a.Early
		switch {
		case last && phase <= object.Validation:
			phase = object.Validation + 1
			fmt.Fprintf(w, "\n%s\n", p.bold("after the decision"))
		case !last && a.Phase != phase:
			phase = a.Phase
			fmt.Fprintf(w, "\n%s\n", p.bold(fmt.Sprintf("phase %d %s", int(phase), phase)))
		}
		printAction(w, p, a)
	}
	for _, warning := range plan.Warnings {
		fmt.Fprintf(w, "\n%s %s", p.yellow("warning:"), warning)
	}
	if len(plan.Warnings) > 0 {
		fmt.Fprintln(w)
	}
	if plan.Empty() {
		_, err := fmt.Fprintf(w, "No changes: %d objects are as Git describes them.\n", plan.Unchanged)
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", summary(plan))
	return err
}

func printAction(w io.Writer, p paint, a reconcile.Action) {
	sign := map[reconcile.Do]string{
		reconcile.Create: p.green("+ create  "), reconcile.Change: p.yellow("~ change  "), reconcile.Adopt: p.cyan("= adopt   "),
		reconcile.Recreate: p.red("± recreate"), reconcile.Prune: p.red("- prune   "), reconcile.Keep: p.dim("· keep    "),
	}[a.Do]
	var notes []string
	if a.Repair {
		notes = append(notes, "drifted")
	}
	if a.Restart {
		notes = append(notes, "pods are replaced")
	}
	if a.Late {
		notes = append(notes, "proved once its namespace or kind is there")
	}
	if a.Note != "" {
		notes = append(notes, a.Note)
	}
	tail := ""
	if len(notes) > 0 {
		tail = p.dim("  (" + strings.Join(notes, "; ") + ")")
	}
	fmt.Fprintf(w, "  %s %s%s\n", sign, a.Ref, tail)
	for _, f := range a.Fields {
		fmt.Fprintf(w, "      %s: %s -> %s\n", f.Path, p.red(dash(f.Old)), p.green(dash(f.New)))
	}
}

func summary(plan *reconcile.Plan) string {
	n := plan.Counts()
	var parts []string
	for _, do := range []reconcile.Do{reconcile.Create, reconcile.Change, reconcile.Adopt, reconcile.Recreate, reconcile.Prune, reconcile.Keep} {
		if n[string(do)] > 0 {
			parts = append(parts, fmt.Sprintf("%d to %s", n[string(do)], do))
		}
	}
	return strings.Join(parts, ", ") + fmt.Sprintf(", %d unchanged", plan.Unchanged)
}
