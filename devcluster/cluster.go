package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/version"
	"k8s.io/klog/v2"

	"github.com/nexus-platform/reconciler/devcluster/kubelet"
	"github.com/nexus-platform/reconciler/devcluster/sim"
)

const (
	startLimit = 2 * time.Minute
	stopGrace  = 20 * time.Second // of each component
	pollEvery  = 20 * time.Millisecond
)

// Options says what Start starts.
type Options struct {
	Dir                   string
	Address               string // host:port
	Nodes                 int
	PodReadyAfter         time.Duration
	APIServerArgs         []string
	ControllerManagerArgs []string
	SchedulerArgs         []string
	Progress              io.Writer // a line for each component that is up
}

// Cluster is a running control plane. Kubernetes' components keep global state (feature gates, metrics, configz):
// a process can have one.
type Cluster struct {
	Kubeconfig string     // path of the administrator's
	Failed     chan error // a component ended by itself

	options  Options
	dir      string
	pki      *pki
	listener net.Listener
	stop     []func() // run last to first
}

// Start starts a control plane and returns when it can be used: nodes ready, the default service account there.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	c := &Cluster{Failed: make(chan error, 8), options: o}
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("not done within %s", startLimit))
	defer cancel()
	for _, step := range []struct {
		name string
		do   func(ctx context.Context) error
	}{
		{"state directory", c.open},
		{"certificates", c.certify},
		{"etcd and kube-apiserver", c.startServers},
		{"kube-controller-manager", c.startControllerManager},
		{"kube-scheduler", c.startScheduler},
		{"nodes", c.startKubelet},
		{"kubeconfig", c.publish},
	} {
		begin := time.Now()
		if err := step.do(ctx); err != nil {
			c.Stop()
			return nil, fmt.Errorf("start %s: %w", step.name, err)
		}
		fmt.Fprintf(o.Progress, "%-24s %6.3fs\n", step.name, time.Since(begin).Seconds())
	}
	return c, nil
}

// open takes the state directory and the port. The listener is handed to the API server, so nobody can take the port in between.
func (c *Cluster) open(context.Context) error {
	dir, err := filepath.Abs(c.options.Dir)
	if err != nil {
		return err
	}
	c.dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return err
	}
	c.stop = append(c.stop, unlock)
	if c.listener, err = listen(c.options.Address, filepath.Join(dir, "address")); err != nil {
		return err
	}
	c.stop = append(c.stop, func() { c.listener.Close() })
	return nil
}

// certify makes what is missing of the PKI, and all certificates and kubeconfigs anew.
func (c *Cluster) certify(context.Context) (err error) {
	if c.pki, err = loadOrCreatePKI(filepath.Join(c.dir, "pki")); err != nil {
		return err
	}
	return c.pki.issueAll(c.listener.Addr().String())
}

func (c *Cluster) startServers(ctx context.Context) error {
	etcd, err := c.startEtcd(ctx)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	if err := c.startAPIServer(ctx, etcd); err != nil {
		return err
	}
	cfg, err := c.admin()
	if err != nil {
		return err
	}
	return c.waitReady(ctx, cfg)
}

func (c *Cluster) admin() (*rest.Config, error) {
	return clientcmd.BuildConfigFromFlags("", c.pki.path("admin.kubeconfig"))
}

func (c *Cluster) startKubelet(ctx context.Context) error {
	cfg, err := clientcmd.BuildConfigFromFlags("", c.pki.path("kubelet.kubeconfig"))
	if err != nil {
		return err
	}
	cfg.QPS = -1
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.UserAgent = "devcluster-kubelet"
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	k := &kubelet.Kubelet{
		Client: client, Nodes: c.options.Nodes, Version: version.Get().GitVersion,
		World: sim.World{ReadyAfter: c.options.PodReadyAfter},
	}
	if err := k.Register(ctx); err != nil {
		return err
	}
	c.component("kubelet", k.Run)
	return c.waitUsable(ctx, client)
}

// waitUsable waits for what the first pod needs: a service account made by the controller manager, and nodes without the
// taint that it puts on them until it has seen them ready.
func (c *Cluster) waitUsable(ctx context.Context, client kubernetes.Interface) error {
	return c.poll(ctx, func() error {
		if _, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range nodes.Items {
			if n := &nodes.Items[i]; len(n.Spec.Taints) > 0 || !ready(n) {
				return fmt.Errorf("node %s is not ready", n.Name)
			}
		}
		return nil
	})
}

func ready(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// poll repeats check until it succeeds, a component fails or ctx ends.
func (c *Cluster) poll(ctx context.Context, check func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		last := check()
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%v)", context.Cause(ctx), last)
		case err := <-c.Failed:
			return err
		case <-tick.C:
		}
	}
}

// publish puts the administrator's kubeconfig where people look for it. It stays when the cluster stops, so that clients
// can be started before the cluster is back.
func (c *Cluster) publish(context.Context) error {
	b, err := os.ReadFile(c.pki.path("admin.kubeconfig"))
	if err != nil {
		return err
	}
	c.Kubeconfig = filepath.Join(c.dir, "kubeconfig")
	return writeFileAtomic(c.Kubeconfig, b, 0o600)
}

// component runs f until the cluster stops. Its context is not the caller's: components stop one after the other.
func (c *Cluster) component(name string, f func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := f(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		c.fail(fmt.Errorf("%s: %w", name, err))
	}()
	c.stop = append(c.stop, func() {
		cancel()
		select {
		case <-done:
		case <-time.After(stopGrace):
			klog.Warningf("%s did not stop within %s", name, stopGrace)
		}
	})
}

// fail tells of a failure, unless there are more already than anybody reads.
func (c *Cluster) fail(err error) {
	select {
	case c.Failed <- err:
	default:
	}
}

// Stop stops everything, last started first.
func (c *Cluster) Stop() {
	for i := len(c.stop) - 1; i >= 0; i-- {
		c.stop[i]()
	}
	c.stop = nil
}

// parse sets a component's options as its command line would. The components' own commands cannot be used: each installs
// a signal handler, and the second to do so panics.
func parse(name string, sets map[string]*pflag.FlagSet, args []string) error {
	flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
	for _, s := range sets {
		flags.AddFlagSet(s)
	}
	return flags.Parse(args)
}

func port(a net.Addr) string { return strconv.Itoa(a.(*net.TCPAddr).Port) }
