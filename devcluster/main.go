// Command devcluster is a small, real Kubernetes control plane in ONE process:
// embedded etcd + kube-apiserver + kube-controller-manager + kube-scheduler +
// a simulated kubelet (nodes and pods), built only from Go modules.
//
// It is also a multi-call binary: called as (or with first argument)
// etcd | kube-apiserver | kube-controller-manager | kube-scheduler | kubectl
// it behaves as that program, so a directory of symlinks is a valid
// KUBEBUILDER_ASSETS for controller-runtime's envtest.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

func main() {
	args := append([]string(nil), os.Args...)
	name := filepath.Base(args[0])
	if !isApplet(name) && len(args) > 1 && isApplet(args[1]) {
		name = args[1]
		args = args[1:]
	}
	if isApplet(name) {
		os.Args = append([]string{name}, args[1:]...)
		os.Exit(runApplet(name, args[1:]))
	}
	cmd := ""
	if len(args) > 1 {
		cmd = args[1]
	}
	var err error
	switch cmd {
	case "up":
		err = cmdUp(args[2:])
	case "kubeconfig":
		err = cmdKubeconfig(args[2:])
	case "kubelet":
		err = cmdKubelet(args[2:])
	default:
		fmt.Fprintln(os.Stderr, "usage: devcluster up|kubelet|kubeconfig|etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubectl [flags]")
		os.Exit(2)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "devcluster:", err)
		os.Exit(1)
	}
}

func signalContext() context.Context {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal kills the process the hard way
	}()
	return ctx
}

func cmdUp(args []string) error {
	var o Options
	fs := pflag.NewFlagSet("up", pflag.ContinueOnError)
	fs.StringVar(&o.Dir, "dir", "", "state directory (etcd data, PKI, kubeconfig); empty: a temporary one, removed at exit")
	fs.StringVar(&o.Addr, "addr", "127.0.0.1:0", "address of the API server (port 0: a free one; a kept --dir reuses its last port if free)")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "where to write the admin kubeconfig (default DIR/kubeconfig)")
	fs.IntVar(&o.Nodes, "nodes", 2, "simulated nodes")
	fs.StringVar(&o.Kubelet, "kubelet", "sim", "who plays the kubelet: sim, kwok or none")
	fs.BoolVar(&o.ControllerManager, "controller-manager", true, "run kube-controller-manager")
	fs.BoolVar(&o.Scheduler, "scheduler", true, "run kube-scheduler")
	fs.DurationVar(&o.PodReadyAfter, "pod-ready-after", 200*time.Millisecond, "sim: time from bound to Ready")
	fs.StringArrayVar(&o.APIServerArgs, "apiserver-arg", nil, "extra kube-apiserver flag (repeatable)")
	fs.StringArrayVar(&o.ControllerManagerArgs, "controller-manager-arg", nil, "extra kube-controller-manager flag (repeatable)")
	fs.StringArrayVar(&o.SchedulerArgs, "scheduler-arg", nil, "extra kube-scheduler flag (repeatable)")
	fs.BoolVar(&o.Fsync, "etcd-fsync", false, "let etcd fsync (slower; data survive a power cut)")
	verbosity := fs.Int("v", 0, "klog verbosity")
	quiet := fs.Bool("quiet", false, "silence all component logs")
	withParent := fs.Bool("with-parent", false, "stop when standard input ends, that is when the process that holds its other end is gone")
	ephemeral := fs.Bool("ephemeral", false, "remove DIR when standard input has ended (with --with-parent)")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return err
	}
	setupLogging(*verbosity, *quiet)
	defer klog.Flush()

	ctx := signalContext()
	orphaned := make(chan struct{})
	if *withParent {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			close(orphaned)
			cancel()
		}()
		if *ephemeral {
			defer func() {
				select {
				case <-orphaned:
					os.RemoveAll(o.Dir)
				default:
				}
			}()
		}
	}
	c, err := Start(ctx, o)
	if err != nil {
		return err
	}
	for _, s := range c.Timings {
		fmt.Printf("%-28s %8.3fs\n", s.Name, s.At.Seconds())
	}
	fmt.Printf("kubeconfig: %s\n", c.Kubeconfig)
	var runErr error
	select {
	case <-ctx.Done():
	case runErr = <-c.Failed:
	}
	t := time.Now()
	c.Stop()
	fmt.Printf("stopped in %.3fs\n", time.Since(t).Seconds())
	return runErr
}

func cmdKubeconfig(args []string) error {
	var dir, user, out string
	var groups []string
	fs := pflag.NewFlagSet("kubeconfig", pflag.ContinueOnError)
	fs.StringVar(&dir, "dir", "", "state directory of a running cluster")
	fs.StringVar(&user, "user", "kubernetes-admin", "user name (certificate CN)")
	fs.StringSliceVar(&groups, "group", nil, "groups (certificate O)")
	fs.StringVarP(&out, "output", "o", "", "file to write (default stdout)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if dir == "" {
		return errors.New("--dir is required")
	}
	addr, err := os.ReadFile(filepath.Join(dir, "address"))
	if err != nil {
		return err
	}
	pki, err := loadOrCreatePKI(filepath.Join(dir, "pki"))
	if err != nil {
		return err
	}
	b, err := pki.kubeconfig("https://"+strings.TrimSpace(string(addr)), user, groups)
	if err != nil {
		return err
	}
	if out == "" {
		_, err = os.Stdout.Write(b)
		return err
	}
	return writeFileAtomic(out, b, 0o600)
}
