// Command reconciler makes the commits of a Git config repository true in a Kubernetes
// cluster, each as one release that is verified or completely undone.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/nexus-platform/reconciler/render"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == render.ChildVerb {
		os.Exit(render.ChildMain(os.Stdin, os.Stdout))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// exitCode is an outcome that is no error of the program: the verb has said already what happened.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// The exit codes, beside 0 and 1 (error).
const (
	exitChanges  exitCode = 1 // plan: there are changes (errors are above 1, as with kubectl diff)
	exitFindings exitCode = 2 // validate: findings; drift: drift
	exitReverted exitCode = 3
	exitRefused  exitCode = 4
	exitHalted   exitCode = 5
)

func execute(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var code exitCode
	if errors.As(err, &code) {
		return int(code)
	}
	fmt.Fprintln(os.Stderr, "reconciler: "+err.Error())
	if cmd != nil && cmd.Name() == "plan" {
		return 2
	}
	return 1
}

func newRoot() *cobra.Command {
	o := newOptions()
	root := &cobra.Command{
		Use:           "reconciler",
		Short:         "A commit is a release transaction: verified, or completely undone",
		SilenceErrors: true,
		SilenceUsage:  true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "reconciler"},
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			if cmd.Name() != "run" { // without a logger, the library prints a stack after half a minute
				ctrl.SetLogger(logr.Discard())
			}
		},
	}
	o.config.AddFlags(root.PersistentFlags())
	root.AddCommand(
		newRun(o), newInstall(o), newUninstall(o), newValidate(o), newPlan(o), newApply(o),
		newStatus(o), newHistory(o), newExplain(o), newDrift(o),
		newRollback(o), newRetry(o), newSuspend(o), newResume(o), newDemo(o), newVersion(),
	)
	return root
}
