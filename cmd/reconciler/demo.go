package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
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
		s.invite(cmd.Context())
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
		for _, name := range demoEnvironments { // nobody's work is put at risk
			ns := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: demoNamespace(name)}}
			switch err := c.Get(ctx, client.ObjectKeyFromObject(&ns), &ns); {
			case err == nil:
				return fmt.Errorf("namespace %s exists in %s; the demo makes it itself and removes it at the end: use another cluster, or delete it", ns.Name, cfg.Host)
			case client.IgnoreNotFound(err) != nil:
				return fmt.Errorf("look for namespace %s: %w", ns.Name, err)
			}
		}
		s.client, s.config = c, cfg
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

// invite says how to play with what is up.
func (s *stage) invite(ctx context.Context) {
	fmt.Fprintf(s.w, "\nEverything stays up until Ctrl-C. In another terminal:\n")
	if s.cluster != nil {
		fmt.Fprintf(s.w, "  export KUBECONFIG=%s\n", s.kubeconfig)
		if _, err := exec.LookPath("kubectl"); err != nil && cluster.Kubectl(ctx, s.dir) == nil {
			fmt.Fprintf(s.w, "  export PATH=$PATH:%s\n", s.dir)
		}
	}
	fmt.Fprintf(s.w, "  kubectl get environments,releases -A\n  git clone %s   # push to main, and see what happens\n", s.repo.url())
}

// close stops what the demo started, in reverse order.
func (s *stage) close() {
	if s.daemon != nil {
		s.daemon.stop()
	}
	s.leave()
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

// leave takes away what the demo made in a cluster that is not its own.
func (s *stage) leave() {
	if s.cluster != nil || s.client == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the demo's own context has ended by Ctrl-C
	defer cancel()
	for _, name := range demoEnvironments {
		env := v1alpha1.Environment{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: demoNamespace(name)}}
		err := s.client.Get(ctx, client.ObjectKeyFromObject(&env), &env)
		if err == nil && len(env.Finalizers) > 0 { // the daemon that would take it off has ended
			env.Finalizers = nil
			err = s.client.Update(ctx, &env)
		}
		if err = client.IgnoreNotFound(err); err == nil {
			err = s.client.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: env.Namespace}})
		}
		if client.IgnoreNotFound(err) != nil {
			fmt.Fprintf(s.w, "remove namespace %s: %v\n", env.Namespace, err)
		}
	}
	fmt.Fprintln(s.w, "\nremoved the demo's namespaces; CRDs and rights stay until `reconciler uninstall`")
}
