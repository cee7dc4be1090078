package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
)

// ask writes a request for the daemon and returns its id. Only the right to change Environments is needed.
func ask(ctx context.Context, c client.Client, env *v1alpha1.Environment, q v1alpha1.Request) (string, error) {
	if env.Spec.Suspend {
		return "", fmt.Errorf("%s is suspended; `reconciler resume %s` first", env.Name, env.Name)
	}
	q.ID = strings.ToLower(rand.Text()[:12])
	q.By = whoami()
	b, err := json.Marshal(q)
	if err != nil {
		return "", err
	}
	before := env.DeepCopy()
	if env.Annotations == nil {
		env.Annotations = map[string]string{}
	}
	env.Annotations[v1alpha1.RequestAnnotation] = string(b)
	return q.ID, c.Patch(ctx, env, client.MergeFrom(before))
}

func whoami() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "unknown"
}

const (
	followEvery = 300 * time.Millisecond
	// deaf is how long a request may go unnoticed before we say that no daemon seems to run.
	deaf = 30 * time.Second
	// lag is how long a commit that is refused a second time may take to show it in the resource that it had already.
	lag = 2 * time.Second
)

// follow shows the progress of a request until its release has an outcome.
func follow(ctx context.Context, w io.Writer, c client.Client, env *v1alpha1.Environment, id string) error {
	p := progress{w: w, paint: painter(w)}
	list, err := releases(ctx, c, env)
	if err != nil {
		return err
	}
	old := map[string]string{} // what was there before the request, so that it is not taken for the answer
	for _, r := range list {
		old[r.Name] = r.ResourceVersion
	}
	started, base := time.Now(), env.Status.Release
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("stopped looking; the daemon goes on: see `reconciler status %s`", env.Name)
		case <-tick.C:
		}
		if err := c.Get(ctx, client.ObjectKeyFromObject(env), env); err != nil {
			return err
		}
		s := env.Status
		handled := s.HandledRequest == id
		switch {
		case handled && s.RequestRelease == "" && s.State != v1alpha1.StateReleasing && s.State != v1alpha1.StateReverting:
			fmt.Fprintln(w, s.RequestResult)
			return nil
		case !handled && s.Release == base && time.Since(started) > deaf:
			return unheard(env)
		}
		name := s.RequestRelease
		if !handled || name == "" { // what has to end before the request has its turn
			name = fmt.Sprintf("%s-%d", env.Name, s.Release)
		}
		var rel v1alpha1.Release
		if err := c.Get(ctx, client.ObjectKey{Namespace: env.Namespace, Name: name}, &rel); err != nil {
			if client.IgnoreNotFound(err) != nil {
				return err
			}
			continue // it is shown a moment later
		}
		stale := rel.Status.Outcome != "" && rel.ResourceVersion == old[name]
		if handled && name == s.RequestRelease && (!stale || time.Since(started) > lag) && rel.Status.Outcome != "" {
			p.show(&rel)
			return p.end(&rel)
		}
		if !stale {
			p.show(&rel)
		}
	}
}

// unheard says why a request may not have been taken.
func unheard(env *v1alpha1.Environment) error {
	why := "the environment has no status: is the daemon running? (kubectl -n nexus-system get pods)"
	if c := meta.FindStatusCondition(env.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		why = fmt.Sprintf("the environment is %s: %s; if that is old: is the daemon running? (kubectl -n nexus-system get pods)", c.Reason, c.Message)
	}
	return fmt.Errorf("nobody took the request for %s; %s", deaf, why)
}

// progress prints what changed since it last looked, a line each: it reads the same in a terminal and in a log.
type progress struct {
	w     io.Writer
	paint paint
	begun string // name of the release shown
	phase string // those shown
	wait  string
	note  string
}

func (p *progress) show(r *v1alpha1.Release) {
	s := r.Status
	if p.begun != r.Name {
		*p = progress{w: p.w, paint: p.paint, begun: r.Name}
		fmt.Fprintf(p.w, "release %d of %.10s %s\n", r.Spec.Number, r.Spec.Commit, p.paint.dim(r.Spec.Subject))
	}
	for _, phase := range s.Phases {
		if phase.Name > "" && !strings.Contains(p.phase, phase.Name+";") {
			p.phase += phase.Name + ";"
			fmt.Fprintf(p.w, "  %s %s\n", p.paint.cyan("▸"), phase.Name)
		}
	}
	if len(s.Waiting) > 0 && s.Waiting[0] != p.wait {
		p.wait = s.Waiting[0]
		fmt.Fprintf(p.w, "    waits for %s\n", p.paint.dim(p.wait))
	}
	if s.Outcome == "" && s.Message != p.note && s.Message != "" {
		p.note = s.Message
		fmt.Fprintf(p.w, "  %s %s\n", p.paint.yellow("!"), s.Message)
	}
}

func (p *progress) end(r *v1alpha1.Release) error {
	s := r.Status
	line := fmt.Sprintf("%s: %s", s.Outcome, s.Message)
	switch s.Outcome {
	case v1alpha1.Succeeded:
		fmt.Fprintln(p.w, p.paint.green("✓ "+line))
		return nil
	case v1alpha1.Refused:
		fmt.Fprintln(p.w, p.paint.red("✗ "+line))
		for _, f := range s.Findings {
			fmt.Fprintln(p.w, "  "+f)
		}
		return exitRefused
	case v1alpha1.Halted:
		fmt.Fprintln(p.w, p.paint.red("✗ "+line))
		return exitHalted
	}
	fmt.Fprintln(p.w, p.paint.red("✗ "+line))
	return exitReverted
}

// requestVerb makes a verb that asks the daemon and follows what comes of it.
func requestVerb(o *options, use, short, long string, fill func(*cobra.Command, *v1alpha1.Environment, client.Client) (v1alpha1.Request, error)) *cobra.Command {
	var dryRun, wait bool
	cmd := &cobra.Command{
		Use: use + " ENV", Short: short, Long: long,
		Args: cobra.ExactArgs(1), ValidArgsFunction: o.completeEnv,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be asked of the daemon, and ask nothing")
	cmd.Flags().BoolVar(&wait, "wait", true, "follow the release until its outcome")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		env, _, c, err := o.environment(ctx, args[0], "")
		if err != nil {
			return err
		}
		q, err := fill(cmd, env, c)
		if err != nil {
			return err
		}
		if dryRun {
			fmt.Fprintf(cmd.OutOrStdout(), "would ask the daemon to %s %s %s\n", q.Verb, env.Name, q.Commit)
			return nil
		}
		id, err := ask(ctx, c, env, q)
		if err != nil {
			return err
		}
		if !wait {
			fmt.Fprintf(cmd.OutOrStdout(), "asked for as request %s\n", id)
			return nil
		}
		return follow(ctx, cmd.OutOrStdout(), c, env, id)
	}
	return cmd
}

func newRollback(o *options) *cobra.Command {
	var to int64
	var commit string
	cmd := requestVerb(o, "rollback", "Release the previous bundle, or an older commit, and pin it",
		`Releases what was there before the last good release, from its bundle in the cluster, or an older
release or commit, rendered again from the mirror. The branch is not followed again until "retry".`,
		func(cmd *cobra.Command, env *v1alpha1.Environment, c client.Client) (v1alpha1.Request, error) {
			q := v1alpha1.Request{Verb: v1alpha1.VerbRollback, Commit: commit, Release: to}
			if to != 0 {
				var rel v1alpha1.Release
				key := client.ObjectKey{Namespace: env.Namespace, Name: fmt.Sprintf("%s-%d", env.Name, to)}
				if err := c.Get(cmd.Context(), key, &rel); err != nil {
					return q, fmt.Errorf("release %d: %w", to, err)
				}
				q.Commit = rel.Spec.Commit
			}
			return q, nil
		})
	cmd.Flags().Int64Var(&to, "to", 0, "number of the release to go back to; default: the previous one")
	cmd.Flags().StringVar(&commit, "commit", "", "full hash of the commit to go back to")
	cmd.MarkFlagsMutuallyExclusive("to", "commit")
	return cmd
}

func newRetry(o *options) *cobra.Command {
	return requestVerb(o, "retry", "Lift quarantine and pin, and follow the branch again", "",
		func(*cobra.Command, *v1alpha1.Environment, client.Client) (v1alpha1.Request, error) {
			return v1alpha1.Request{Verb: v1alpha1.VerbRetry}, nil
		})
}

func newSuspend(o *options) *cobra.Command {
	return suspension(o, "suspend", "Stop releases and repair", true)
}

func newResume(o *options) *cobra.Command {
	return suspension(o, "resume", "Go on with releases and repair", false)
}

func suspension(o *options, use, short string, suspend bool) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{Use: use + " ENV", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: o.completeEnv}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done, and do nothing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		env, _, c, err := o.environment(cmd.Context(), args[0], "")
		if err != nil {
			return err
		}
		word := map[bool]string{true: "suspended", false: "resumed"}[suspend]
		switch {
		case env.Spec.Suspend == suspend:
			fmt.Fprintf(cmd.OutOrStdout(), "%s is %s already\n", env.Name, word)
			return nil
		case dryRun:
			fmt.Fprintf(cmd.OutOrStdout(), "%s would be %s\n", env.Name, word)
			return nil
		}
		before := env.DeepCopy()
		env.Spec.Suspend = suspend
		if err := c.Patch(cmd.Context(), env, client.MergeFrom(before)); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", env.Name, word)
		return nil
	}
	return cmd
}
