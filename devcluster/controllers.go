package main

import (
	"context"
	"slices"

	cmapp "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	cmoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	schedapp "k8s.io/kubernetes/cmd/kube-scheduler/app"
	schedoptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// shared are the flags of both: no port and no lease of their own, over which clusters on one machine would quarrel.
var shared = []string{"--secure-port=0", "--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000"}

func (c *Cluster) startControllerManager(ctx context.Context) error {
	s, err := cmoptions.NewKubeControllerManagerOptions()
	if err != nil {
		return err
	}
	controllers, disabled, aliases := cmapp.KnownControllers(), cmapp.ControllersDisabledByDefault(), cmapp.ControllerAliases()
	args := slices.Concat(shared, []string{
		"--kubeconfig=" + c.pki.path("controller-manager.kubeconfig"),
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + c.pki.path("sa.key"),
		"--root-ca-file=" + c.pki.path("ca.crt"),
		"--cluster-signing-cert-file=" + c.pki.path("ca.crt"),
		"--cluster-signing-key-file=" + c.pki.path("ca.key"),
		"--controller-start-interval=0",
	}, c.options.ControllerManagerArgs)
	if err := parse("kube-controller-manager", s.Flags(controllers, disabled, aliases).FlagSets, args); err != nil {
		return err
	}
	cfg, err := s.Config(context.WithoutCancel(ctx), controllers, disabled, aliases)
	if err != nil {
		return err
	}
	c.component("kube-controller-manager", func(ctx context.Context) error { return cmapp.Run(ctx, cfg.Complete()) })
	return nil
}

func (c *Cluster) startScheduler(ctx context.Context) error {
	s := schedoptions.NewOptions()
	args := slices.Concat(shared, []string{"--kubeconfig=" + c.pki.path("scheduler.kubeconfig")}, c.options.SchedulerArgs)
	if err := parse("kube-scheduler", s.Flags.FlagSets, args); err != nil {
		return err
	}
	ready := make(chan error, 1)
	c.component("kube-scheduler", func(ctx context.Context) error {
		cfg, scheduler, err := schedapp.Setup(ctx, s)
		ready <- err
		if err != nil {
			return err
		}
		return schedapp.Run(ctx, cfg, scheduler)
	})
	select {
	case err := <-ready:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
