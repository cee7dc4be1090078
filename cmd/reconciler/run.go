package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/nexus-platform/reconciler/controller"
	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/render"
)

// runFlags are the daemon's own settings.
type runFlags struct {
	cache, logLevel, logFormat string
	healthAddr, metricsAddr    string
	leaderElect                bool
	lease                      time.Duration
	workers                    int
	namespaces                 []string // whose Environments are followed; none: all
}

func newRun(o *options) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon: follow every Environment of the cluster",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return run(cmd, o, &f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.cache, "cache-dir", filepath.Join(os.TempDir(), "nexus"), "folder of the Git mirrors; may vanish")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	fl.StringVar(&f.logFormat, "log-format", "text", "text or json")
	fl.StringVar(&f.healthAddr, "health-address", ":8081", "address of /healthz and /readyz")
	fl.StringVar(&f.metricsAddr, "metrics-address", ":8080", "address of /metrics; 0 for none")
	fl.BoolVar(&f.leaderElect, "leader-elect", true, "let only the holder of the Lease act")
	fl.DurationVar(&f.lease, "lease-duration", 15*time.Second, "how long the Lease of a daemon that went away is respected")
	fl.IntVar(&f.workers, "workers", 16, "environments that are worked on at the same time")
	fl.StringSliceVar(&f.namespaces, "watch-namespaces", nil, "follow the Environments of these namespaces only: one daemon per team, each with a --system-namespace of its own")
	fl.StringVar(&o.system, "system-namespace", "nexus-system", "namespace of the reconciler, of its Lease and its journals")
	return cmd
}

func logger(cmd *cobra.Command, f *runFlags) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level: %w", err)
	}
	opts := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), opts)), nil
	}
	return nil, fmt.Errorf("--log-format is text or json, not %q", f.logFormat)
}

func run(cmd *cobra.Command, o *options, f *runFlags) error {
	log, err := logger(cmd, f)
	if err != nil {
		return err
	}
	if err := render.Check(); err != nil {
		return fmt.Errorf("the render sandbox cannot be set up, and without it a commit could reach the network and this pod's files: %w", err)
	}
	bridge := logr.FromSlogHandler(log.Handler())
	ctrl.SetLogger(bridge)
	klog.SetLogger(bridge)
	_, cfg, _, err := o.cluster()
	if err != nil {
		return err
	}
	s, err := scheme()
	if err != nil {
		return err
	}
	assembly, err := o.assembly(cfg, f.cache, log)
	if err != nil {
		return err
	}
	log.Info("starting", "version", version, "namespace", o.system)
	for {
		err := lead(cmd.Context(), o.system, cfg, s, f, assembly, log)
		if err == nil || cmd.Context().Err() != nil || err.Error() != leadershipLost {
			return err
		}
		// The API server was away for longer than the Lease lasts, or somebody else took it. What this process
		// knew is void, but it need not end: it stands in line for the Lease again, as a new one would.
		log.Warn("the Lease was lost; standing in line for it again")
	}
}

// leadershipLost is the text of the error with which a manager ends that could not renew its Lease. It has no type.
const leadershipLost = "leader election lost"

// followed limits what the manager watches to the Environments of some namespaces.
func followed(namespaces []string) cache.Options {
	if len(namespaces) == 0 {
		return cache.Options{}
	}
	o := cache.Options{DefaultNamespaces: map[string]cache.Config{}}
	for _, ns := range namespaces {
		o.DefaultNamespaces[ns] = cache.Config{}
	}
	return o
}

// lead runs a manager until ctx ends or the Lease is lost.
func lead(ctx context.Context, system string, cfg *rest.Config, s *runtime.Scheme, f *runFlags, assembly *controller.Assembly, log *slog.Logger) error {
	renew, retry := f.lease*2/3, f.lease/6
	again := true // a second manager of a process has a controller of the same name
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: s, LeaderElection: f.leaderElect, LeaderElectionID: "nexus-reconciler", LeaderElectionNamespace: system,
		LeaderElectionReleaseOnCancel: true, LeaseDuration: &f.lease, RenewDeadline: &renew, RetryPeriod: &retry,
		Metrics: server.Options{BindAddress: f.metricsAddr}, HealthProbeBindAddress: f.healthAddr,
		Controller: config.Controller{SkipNameValidation: &again}, Cache: followed(f.namespaces),
	})
	if err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	c := &controller.Controller{
		Client: mgr.GetClient(), Recorder: mgr.GetEventRecorder("nexus-reconciler"), Assembly: assembly,
		Workers: f.workers, Log: log, Now: failpoint.Now,
	}
	if err := c.Register(mgr); err != nil {
		return err
	}
	defer c.Close()
	return mgr.Start(ctx)
}
