// Command devcluster is a real Kubernetes control plane in one process, for trying things out: etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler, and nodes and pods that are only simulated. Called as kubectl, it is that.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	kubectl "k8s.io/kubectl/pkg/cmd"
)

func main() {
	if filepath.Base(os.Args[0]) == "kubectl" { // a link by that name, for machines that have none
		if err := kubectl.NewDefaultKubectlCommand().Execute(); err != nil {
			os.Exit(1)
		}
		return
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "devcluster:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	o := Options{Progress: os.Stdout}
	flags := pflag.NewFlagSet("devcluster up", pflag.ContinueOnError)
	flags.StringVar(&o.Dir, "dir", "", "state directory, made if need be: etcd's data, PKI, address, kubeconfig (required)")
	flags.StringVar(&o.Address, "addr", "127.0.0.1:0", "address of the API server; port 0: the one that DIR had last, else a free one")
	flags.IntVar(&o.Nodes, "nodes", 2, "how many nodes to simulate")
	flags.DurationVar(&o.PodReadyAfter, "pod-ready-after", 200*time.Millisecond, "how long a pod takes to be ready")
	flags.StringArrayVar(&o.APIServerArgs, "apiserver-arg", nil, "another flag for kube-apiserver (repeatable)")
	flags.StringArrayVar(&o.ControllerManagerArgs, "controller-manager-arg", nil, "another flag for kube-controller-manager (repeatable)")
	flags.StringArrayVar(&o.SchedulerArgs, "scheduler-arg", nil, "another flag for kube-scheduler (repeatable)")
	verbosity := flags.Int("v", 0, "how much the components log")
	withParent := flags.Bool("with-parent", false, "stop when standard input ends: when the process that holds its other end is gone")
	ephemeral := flags.Bool("ephemeral", false, "remove DIR when standard input has ended (with --with-parent)")
	if len(args) == 0 || args[0] != "up" {
		return fmt.Errorf("usage: devcluster up --dir DIR [flags]\n%s", flags.FlagUsages())
	}
	switch err := flags.Parse(args[1:]); {
	case errors.Is(err, pflag.ErrHelp):
		return nil
	case err != nil:
		return err
	case o.Dir == "":
		return errors.New("--dir is required: name a directory for the cluster's state")
	case *ephemeral && !*withParent:
		return errors.New("--ephemeral wants --with-parent")
	}
	if err := logTo(*verbosity); err != nil {
		return err
	}
	defer klog.Flush()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if *withParent {
		var parent <-chan struct{}
		ctx, parent = follow(ctx, os.Stdin)
		defer func() {
			select {
			case <-parent:
				if *ephemeral {
					os.RemoveAll(o.Dir)
				}
			default:
			}
		}()
	}
	return serve(ctx, o)
}

// follow returns a context that ends with ctx or at the end of r, and a channel that is closed at the end of r.
func follow(ctx context.Context, r io.Reader) (context.Context, <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, r) // an error is an end too
		close(gone)
		cancel()
	}()
	return ctx, gone
}

// serve runs a cluster until ctx ends or a component does.
func serve(ctx context.Context, o Options) error {
	c, err := Start(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop while starting
		}
		return err
	}
	defer c.Stop()
	fmt.Println("kubeconfig: " + c.Kubeconfig)
	select {
	case <-ctx.Done():
		return nil
	case err := <-c.Failed:
		return err
	}
}

func logTo(verbosity int) error {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	return flags.Set("v", strconv.Itoa(verbosity))
}
