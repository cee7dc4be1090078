package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/e2e/cluster"
)

func newDemo(o *options) *cobra.Command {
	var once, here bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run the main job for real, on an embedded control plane",
		Long: `Starts a Kubernetes control plane, makes a config repository, and shows what a push becomes: a
release, a refusal, an undo, a healed drift, a guarded prune, a release that survives kill -9. Each
step checks its own result and the demo fails loudly if one is wrong.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&once, "once", false, "end when all steps have passed, instead of staying up to play with")
	cmd.Flags().BoolVar(&here, "on-current-cluster", false, "use the cluster of KUBECONFIG and --context instead of an embedded one; it must be able to run the example's images")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s := &stage{w: cmd.OutOrStdout(), paint: painter(cmd.OutOrStdout())}
		defer s.close()
		if err := s.set(cmd.Context(), o, here); err != nil {
			return err
		}
		if err := s.play(cmd.Context()); err != nil {
			if s.daemonLog != "" {
				fmt.Fprintf(s.w, "the daemon's log is in %s\n", s.daemonLog)
				s.keep = true
			}
			return fmt.Errorf("demo: %w", err)
		}
		if once {
			return nil
		}
		fmt.Fprintf(s.w, "\nEverything stays up until Ctrl-C. In another terminal:\n  export KUBECONFIG=%s\n  kubectl get environments,releases -A\n  git clone %s   # push to main, and see what happens\n", s.kubeconfig, s.repo.url())
		<-cmd.Context().Done()
		return nil
	}
	return cmd
}

// stage is all that the demo runs on.
type stage struct {
	w     io.Writer
	paint paint
	dir   string
	keep  bool // the folder is left behind, for its logs

	cluster    *cluster.Cluster // nil on a cluster that is not ours
	kubeconfig string
	config     *rest.Config
	client     client.Client
	repo       *configRepo
	daemon     *daemon
	daemonLog  string
	step       int
}

func (s *stage) say(format string, args ...any) { fmt.Fprintf(s.w, "  "+format+"\n", args...) }

func (s *stage) title(text string) {
	s.step++
	fmt.Fprintf(s.w, "\n%s\n", s.paint.bold(fmt.Sprintf("%d. %s", s.step, text)))
}

func (s *stage) passed(format string, args ...any) {
	fmt.Fprintf(s.w, "  %s %s\n", s.paint.green("✓"), fmt.Sprintf(format, args...))
}

// set brings up cluster, repository, install and daemon.
func (s *stage) set(ctx context.Context, o *options, here bool) error {
	dir, err := os.MkdirTemp("", "nexus-demo-")
	if err != nil {
		return err
	}
	s.dir = dir
	s.title("A Kubernetes control plane, a config repository, the reconciler")
	if err := s.controlPlane(ctx, o, here); err != nil {
		return err
	}
	if s.repo, err = newConfigRepo(ctx, filepath.Join(dir, "git")); err != nil {
		return err
	}
	s.passed("config repository %s", s.repo.url())
	return s.install(ctx)
}

func (s *stage) controlPlane(ctx context.Context, o *options, here bool) error {
	began := time.Now()
	if here {
		c, cfg, _, err := o.cluster()
		if err != nil {
			return err
		}
		s.client, s.config, s.kubeconfig = c, cfg, os.Getenv("KUBECONFIG")
		s.passed("using %s", cfg.Host)
		return nil
	}
	var err error
	if s.cluster, err = cluster.Start(ctx, cluster.Options{Dir: filepath.Join(s.dir, "cluster"), Progress: s.w}); err != nil {
		return err
	}
	s.kubeconfig = s.cluster.Kubeconfig
	if s.config, err = clientcmd.BuildConfigFromFlags("", s.kubeconfig); err != nil {
		return err
	}
	s.config.QPS = -1
	sch, err := scheme()
	if err != nil {
		return err
	}
	if s.client, err = client.New(s.config, client.Options{Scheme: sch}); err != nil {
		return err
	}
	s.passed("control plane up in %s: etcd, API server, controllers, scheduler, simulated nodes", time.Since(began).Round(100*time.Millisecond))
	return nil
}

// close stops what the demo started, in reverse order.
func (s *stage) close() {
	if s.daemon != nil {
		s.daemon.stop()
	}
	if s.cluster != nil {
		if err := s.cluster.Stop(); err != nil {
			fmt.Fprintln(s.w, err)
		}
	}
	if s.dir != "" && !s.keep {
		if err := os.RemoveAll(s.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			fmt.Fprintln(s.w, err)
		}
	}
}
