package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/object"
)

func newStatus(o *options) *cobra.Command {
	var out format
	var all bool
	cmd := &cobra.Command{
		Use: "status [ENV]", Short: "Show where environments stand",
		Args: cobra.MaximumNArgs(1), ValidArgsFunction: o.completeEnv,
	}
	out.bind(cmd)
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "show the environments of all namespaces")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, _, ns, err := o.cluster()
		if err != nil {
			return err
		}
		if len(args) == 1 {
			env := &v1alpha1.Environment{}
			if err := c.Get(cmd.Context(), client.ObjectKey{Namespace: ns, Name: args[0]}, env); err != nil {
				return err
			}
			return out.print(cmd.OutOrStdout(), env, func(w io.Writer) error { return describeEnvironment(w, env) })
		}
		if all {
			ns = ""
		}
		var list v1alpha1.EnvironmentList
		if err := c.List(cmd.Context(), &list, client.InNamespace(ns)); err != nil {
			return err
		}
		return out.print(cmd.OutOrStdout(), list, func(w io.Writer) error { return listEnvironments(w, list.Items, all, out == "wide") })
	}
	return cmd
}

func listEnvironments(w io.Writer, items []v1alpha1.Environment, all, wide bool) error {
	head := []string{"NAME", "READY", "STATE", "RELEASE", "COMMIT", "OBJECTS", "DRIFTED", "AGE"}
	if all {
		head = append([]string{"NAMESPACE"}, head...)
	}
	if wide {
		head = append(head, "MESSAGE")
	}
	rows := make([][]string, 0, len(items))
	for _, e := range items {
		s := e.Status
		ready, message := "Unknown", ""
		if c := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady); c != nil {
			ready, message = string(c.Status), c.Message
		}
		row := []string{e.Name, ready, dash(s.State), strconv.FormatInt(s.Release, 10), dash(s.ShortCommit),
			strconv.Itoa(int(s.Objects)), strconv.Itoa(int(s.Drifted)), age(e.CreationTimestamp.Time)}
		if all {
			row = append([]string{e.Namespace}, row...)
		}
		if wide {
			row = append(row, message)
		}
		rows = append(rows, row)
	}
	return columns(w, head, rows)
}

func describeEnvironment(w io.Writer, e *v1alpha1.Environment) error {
	p, s := painter(w), e.Status
	line := func(name, value string) { fmt.Fprintf(w, "%-12s %s\n", name+":", value) }
	line("Environment", p.bold(e.Namespace+"/"+e.Name))
	line("Source", fmt.Sprintf("%s, branch %s, path %s", e.Spec.Source.URL, e.Spec.Source.Branch, e.Spec.Path))
	line("State", s.State)
	line("Release", fmt.Sprintf("%d, commit %s", s.Release, dash(s.ShortCommit)))
	if s.Tip != s.Commit {
		line("Tip", s.Tip)
	}
	if s.Phase != "" {
		line("Phase", s.Phase)
	}
	for _, wait := range s.Waiting {
		line("Waits for", wait)
	}
	line("Objects", fmt.Sprintf("%d managed, %d drifted", s.Objects, s.Drifted))
	for _, c := range s.Conditions {
		mark := p.dim(string(c.Status))
		if c.Type == v1alpha1.ConditionReady && c.Status == "True" {
			mark = p.green("True")
		} else if c.Status == "True" && c.Type != v1alpha1.ConditionReconciling || c.Type == v1alpha1.ConditionReady && c.Status == "False" {
			mark = p.red(string(c.Status))
		}
		if c.Message != "" || c.Type == v1alpha1.ConditionReady {
			line(c.Type, fmt.Sprintf("%s %s: %s", mark, c.Reason, c.Message))
		}
	}
	for _, q := range s.Quarantine {
		line("Quarantine", q)
	}
	return nil
}

// releases are the environment's Release resources, newest first.
func releases(ctx context.Context, c client.Client, env *v1alpha1.Environment) ([]v1alpha1.Release, error) {
	var list v1alpha1.ReleaseList
	err := c.List(ctx, &list, client.InNamespace(env.Namespace), client.MatchingLabels{object.Domain + "environment-name": env.Name})
	slices.SortFunc(list.Items, func(a, b v1alpha1.Release) int { // times have whole seconds
		return cmp.Or(began(b).Compare(began(a)), cmp.Compare(b.Spec.Number, a.Spec.Number))
	})
	return list.Items, err
}

func began(r v1alpha1.Release) time.Time {
	if r.Status.StartedAt != nil {
		return r.Status.StartedAt.Time
	}
	return r.CreationTimestamp.Time
}

func newHistory(o *options) *cobra.Command {
	var out format
	cmd := &cobra.Command{
		Use: "history ENV", Short: "Show the releases of an environment, newest first",
		Args: cobra.ExactArgs(1), ValidArgsFunction: o.completeEnv,
	}
	out.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		env, _, c, err := o.environment(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		list, err := releases(cmd.Context(), c, env)
		if err != nil {
			return err
		}
		return out.print(cmd.OutOrStdout(), list, func(w io.Writer) error {
			rows := make([][]string, 0, len(list))
			for _, r := range list {
				number := strconv.FormatInt(r.Spec.Number, 10)
				if r.Status.Outcome == v1alpha1.Refused {
					number = "-" // it never became a release
				}
				rows = append(rows, []string{number, r.Spec.Kind, r.Status.ShortCommit, dash(string(r.Status.Outcome)), took(r), age(began(r)), dash(r.Spec.By), firstLine(dash(r.Status.Message), out == "wide")})
			}
			return columns(w, []string{"RELEASE", "KIND", "COMMIT", "OUTCOME", "TOOK", "AGE", "BY", "MESSAGE"}, rows)
		})
	}
	return cmd
}

func took(r v1alpha1.Release) string {
	if r.Status.StartedAt == nil || r.Status.FinishedAt == nil {
		return "-"
	}
	return r.Status.FinishedAt.Sub(r.Status.StartedAt.Time).Round(time.Second).String()
}

// firstLine keeps a table readable; -o wide shows all.
func firstLine(s string, wide bool) string {
	s, _, _ = strings.Cut(s, "\n")
	if r := []rune(s); !wide && len(r) > 90 {
		return string(r[:89]) + "…"
	}
	return s
}

func newExplain(o *options) *cobra.Command {
	var out format
	cmd := &cobra.Command{
		Use: "explain ENV [RELEASE]", Short: "Say what a release did, what it waits for, and why",
		Args: cobra.RangeArgs(1, 2), ValidArgsFunction: o.completeEnv,
	}
	out.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		env, _, c, err := o.environment(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		list, err := releases(cmd.Context(), c, env)
		if err != nil {
			return err
		}
		if len(args) == 2 {
			list = slices.DeleteFunc(list, func(r v1alpha1.Release) bool {
				return strconv.FormatInt(r.Spec.Number, 10) != args[1] && r.Name != args[1]
			})
		}
		if len(list) == 0 {
			return fmt.Errorf("no such release of %s; `reconciler history %s` lists them", env.Name, env.Name)
		}
		r := list[0]
		return out.print(cmd.OutOrStdout(), r, func(w io.Writer) error { return explain(w, env, r) })
	}
	return cmd
}

func explain(w io.Writer, env *v1alpha1.Environment, r v1alpha1.Release) error {
	p, s := painter(w), r.Status
	fmt.Fprintf(w, "%s of %s: %s %s by %s\n", p.bold(fmt.Sprintf("Release %d", r.Spec.Number)), env.Name, r.Spec.Kind, r.Spec.Commit, dash(r.Spec.By))
	if r.Spec.Subject != "" {
		fmt.Fprintf(w, "  %s\n", p.dim(r.Spec.Subject))
	}
	for _, phase := range s.Phases {
		end := "running"
		if phase.Finished != nil {
			end = phase.Finished.Sub(phase.Started.Time).String()
		}
		fmt.Fprintf(w, "  phase %-15s %s\n", phase.Name, end)
	}
	if s.Outcome == "" {
		fmt.Fprintf(w, "It is open, in phase %s.\n", dash(s.Phase))
		for _, wait := range s.Waiting {
			fmt.Fprintf(w, "  waits for %s\n", wait)
		}
		return nil
	}
	fmt.Fprintf(w, "%s: %s\n", p.bold(string(s.Outcome)), s.Message)
	for _, f := range s.Findings {
		fmt.Fprintf(w, "  %s %s\n", p.red("✗"), f)
	}
	for _, k := range s.Kept {
		fmt.Fprintf(w, "  kept: %s\n", k)
	}
	return nil
}

func newDrift(o *options) *cobra.Command {
	var out format
	cmd := &cobra.Command{
		Use: "drift ENV", Short: "Show what drifted, who did it and when",
		Long: "Shows the newest observations of drift. Exit codes: 0 nothing differs now, 1 error, 2 something differs now.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: o.completeEnv,
	}
	out.bind(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		env, _, _, err := o.environment(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		err = out.print(cmd.OutOrStdout(), env.Status.Drift, func(w io.Writer) error {
			rows := make([][]string, 0, len(env.Status.Drift))
			for _, d := range env.Status.Drift {
				rows = append(rows, []string{age(d.At.Time), d.Object, d.Verb, d.Manager, d.Action, strconv.Itoa(int(d.Count)), dash(strings.Join(d.Fields, ", "))})
			}
			return columns(w, []string{"AGE", "OBJECT", "WAS", "BY", "ACTION", "COUNT", "FIELDS"}, rows)
		})
		if err == nil && env.Status.Drifted > 0 {
			return exitFindings
		}
		return err
	}
	return cmd
}
