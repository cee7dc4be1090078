package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	apiserverapp "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	cmapp "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	cmoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	schedapp "k8s.io/kubernetes/cmd/kube-scheduler/app"
	schedoptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// Options says what Start starts.
type Options struct {
	Dir                   string
	Addr                  string
	Kubeconfig            string
	Nodes                 int
	Kubelet               string
	PodReadyAfter         time.Duration
	ControllerManager     bool
	Scheduler             bool
	Fsync                 bool
	APIServerArgs         []string
	ControllerManagerArgs []string
	SchedulerArgs         []string
}

// Timing is a moment in the start, counted from the process's start.
type Timing struct {
	Name string
	At   time.Duration
}

// Cluster is a running control plane. The Kubernetes components keep global
// state (feature gates, metrics, configz), so there is one Cluster per process.
type Cluster struct {
	Kubeconfig string
	Address    string
	Timings    []Timing
	Failed     chan error // a component that ended by itself

	tempDir string
	etcd    *embed.Etcd
	stop    []func() // run last to first
}

var processStart = time.Now()

func (c *Cluster) mark(name string) {
	c.Timings = append(c.Timings, Timing{name, time.Since(processStart)})
}

func setupLogging(v int, quiet bool) {
	fs := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(fs)
	_ = fs.Set("v", strconv.Itoa(v))
	if quiet {
		_ = fs.Set("logtostderr", "false")
		_ = fs.Set("stderrthreshold", "FATAL")
		klog.SetOutput(io.Discard)
	}
}

// component runs f in a goroutine under its own context; stopping waits for it.
func (c *Cluster) component(name string, grace time.Duration, f func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := f(ctx)
		if ctx.Err() == nil {
			if err == nil {
				err = errors.New("ended by itself")
			}
			select {
			case c.Failed <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	}()
	c.stop = append(c.stop, func() {
		cancel()
		select {
		case <-done:
		case <-time.After(grace):
			klog.Warningf("%s did not stop within %s", name, grace)
		}
	})
}

// Stop stops everything, last started first.
func (c *Cluster) Stop() {
	for i := len(c.stop) - 1; i >= 0; i-- {
		c.stop[i]()
	}
	c.stop = nil
	if c.tempDir != "" {
		os.RemoveAll(c.tempDir)
	}
}

// Start starts the control plane and returns when it is ready for use.
func Start(ctx context.Context, o Options) (c *Cluster, err error) {
	c = &Cluster{Failed: make(chan error, 8)}
	defer func() {
		if err != nil {
			c.Stop()
			c = nil
		}
	}()
	dir := o.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "devcluster-"); err != nil {
			return c, err
		}
		c.tempDir = dir
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return c, err
	}
	if err = os.MkdirAll(dir, 0o700); err != nil {
		return c, err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return c, err
	}
	c.stop = append(c.stop, unlock)

	// The listener is opened first and handed over: no race for a free port.
	addrFile := filepath.Join(dir, "address")
	ln, err := listen(o.Addr, addrFile)
	if err != nil {
		return c, err
	}
	c.Address = ln.Addr().String()
	server := "https://" + c.Address

	p, err := loadOrCreatePKI(filepath.Join(dir, "pki"))
	if err != nil {
		return c, err
	}
	host, portStr, _ := net.SplitHostPort(c.Address)
	port, _ := strconv.Atoi(portStr)
	// 10.96.0.1 is the first address of the service range: kubernetes.default.svc.
	ips := []net.IP{net.ParseIP(host), net.ParseIP("127.0.0.1"), net.ParseIP("10.96.0.1")}
	dns := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	if err = p.writePair("apiserver", "kube-apiserver", nil, ips, dns, x509.ExtKeyUsageServerAuth); err != nil {
		return c, err
	}
	if err = p.writePair("front-proxy-client", "front-proxy-client", nil, nil, nil, x509.ExtKeyUsageClientAuth); err != nil {
		return c, err
	}
	if err = p.writePair("kubelet-client", "kube-apiserver-kubelet-client", []string{"system:masters"}, nil, nil, x509.ExtKeyUsageClientAuth); err != nil {
		return c, err
	}
	kubeconfigs := map[string][]string{ // file: user, groups...
		"admin":              {"kubernetes-admin", "system:masters"},
		"controller-manager": {"system:kube-controller-manager"},
		"scheduler":          {"system:kube-scheduler"},
		"kubelet":            {"devcluster-kubelet", "system:masters"},
	}
	for name, u := range kubeconfigs {
		b, err := p.kubeconfig(server, u[0], u[1:])
		if err != nil {
			return c, err
		}
		if err := writeFileAtomic(p.path(name+".kubeconfig"), b, 0o600); err != nil {
			return c, err
		}
	}
	c.mark("pki")

	etcdURL, err := c.startEtcd(dir, o.Fsync)
	if err != nil {
		return c, fmt.Errorf("etcd: %w", err)
	}
	c.mark("etcd ready")

	if err = c.startAPIServer(ln, port, p, etcdURL, o.APIServerArgs); err != nil {
		return c, fmt.Errorf("kube-apiserver: %w", err)
	}
	adminCfg, err := clientcmd.BuildConfigFromFlags("", p.path("admin.kubeconfig"))
	if err != nil {
		return c, err
	}
	if err = c.waitReady(ctx, adminCfg); err != nil {
		return c, err
	}
	c.mark("kube-apiserver /readyz ok")

	if o.ControllerManager {
		if err = c.startControllerManager(p, o.ControllerManagerArgs); err != nil {
			return c, fmt.Errorf("kube-controller-manager: %w", err)
		}
	}
	if o.Scheduler {
		if err = c.startScheduler(p, o.SchedulerArgs); err != nil {
			return c, fmt.Errorf("kube-scheduler: %w", err)
		}
	}
	if err = c.startKubelet(ctx, p.path("kubelet.kubeconfig"), o); err != nil {
		return c, fmt.Errorf("kubelet: %w", err)
	}
	c.mark("components started")

	// Pods can be made in "default" once its service account is there.
	if o.ControllerManager {
		client, err := kubernetes.NewForConfig(adminCfg)
		if err != nil {
			return c, err
		}
		if err := waitUsable(ctx, client, o, c.Failed); err != nil {
			return c, err
		}
		c.mark("usable (nodes, default SA)")
	}

	c.Kubeconfig = o.Kubeconfig
	if c.Kubeconfig == "" {
		c.Kubeconfig = filepath.Join(dir, "kubeconfig")
	}
	b, err := os.ReadFile(p.path("admin.kubeconfig"))
	if err != nil {
		return c, err
	}
	// Written last: a kubeconfig that is there is one that works.
	if err := writeFileAtomic(c.Kubeconfig, b, 0o600); err != nil {
		return c, err
	}
	return c, nil
}

func listen(addr, addrFile string) (net.Listener, error) {
	if strings.HasSuffix(addr, ":0") {
		if b, err := os.ReadFile(addrFile); err == nil {
			if ln, err := net.Listen("tcp", strings.TrimSpace(string(b))); err == nil {
				return ln, nil
			}
		}
	}
	ln, err := listenFixed(addr)
	if err != nil {
		return nil, err
	}
	return ln, writeFileAtomic(addrFile, []byte(ln.Addr().String()+"\n"), 0o644)
}

// listenFixed listens on addr. For port 0 it takes a free one below those that the kernel
// hands out by itself (from 32768): a cluster that is stopped for a while finds its port free again.
func listenFixed(addr string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port != "0" {
		return net.Listen("tcp", addr)
	}
	for range 100 {
		ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(20000+rand.IntN(12000))))
		if err == nil {
			return ln, nil
		}
	}
	return net.Listen("tcp", addr)
}

func (c *Cluster) startEtcd(dir string, fsync bool) (string, error) {
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "etcd")
	cfg.UnsafeNoFsync = !fsync
	cfg.QuotaBackendBytes = 4 << 30
	lg, err := zap.Config{
		Level:            zap.NewAtomicLevelAt(zapcore.ErrorLevel),
		Encoding:         "console",
		EncoderConfig:    zap.NewProductionEncoderConfig(),
		OutputPaths:      []string{"stderr"},
		ErrorOutputPaths: []string{"stderr"},
	}.Build()
	if err != nil {
		return "", err
	}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(lg)
	// Clients come over a unix socket: no port, and only this user can talk to it.
	sock := filepath.Join(dir, "etcd.sock")
	if len(sock) > 100 { // the kernel's limit is 107 bytes
		sockDir, err := os.MkdirTemp("", "dc-etcd-")
		if err != nil {
			return "", err
		}
		c.stop = append(c.stop, func() { os.RemoveAll(sockDir) })
		sock = filepath.Join(sockDir, "s")
	}
	os.Remove(sock) // left by a killed process; DIR/lock says that nobody listens
	cfg.ListenClientUrls = []url.URL{{Scheme: "unix", Path: sock}}
	// Never used by anyone: one member, and the API server gets the socket.
	cfg.AdvertiseClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return "", err
	}
	c.etcd = e
	c.stop = append(c.stop, e.Close)
	go func() {
		if err, ok := <-e.Err(); ok && err != nil {
			select {
			case c.Failed <- fmt.Errorf("etcd: %w", err):
			default:
			}
		}
	}()
	select {
	case <-e.Server.ReadyNotify():
		return "unix://" + sock, nil
	case <-time.After(60 * time.Second):
		return "", errors.New("not ready after 60s")
	}
}

func parse(name string, sets map[string]*pflag.FlagSet, args []string) error {
	fs := pflag.NewFlagSet(name, pflag.ContinueOnError)
	for _, s := range sets {
		fs.AddFlagSet(s)
	}
	return fs.Parse(args)
}

func (c *Cluster) startAPIServer(ln net.Listener, port int, p *pki, etcdURL string, extra []string) error {
	s := apiserveroptions.NewServerRunOptions()
	args := append([]string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(port),
		"--advertise-address=127.0.0.1", // else it looks for a default route
		"--endpoint-reconciler-type=none",
		"--tls-cert-file=" + p.path("apiserver.crt"),
		"--tls-private-key-file=" + p.path("apiserver.key"),
		"--client-ca-file=" + p.path("ca.crt"),
		"--requestheader-client-ca-file=" + p.path("ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + p.path("front-proxy-client.crt"),
		"--proxy-client-key-file=" + p.path("front-proxy-client.key"),
		"--kubelet-client-certificate=" + p.path("kubelet-client.crt"),
		"--kubelet-client-key=" + p.path("kubelet-client.key"),
		"--service-account-key-file=" + p.path("sa.key"),
		"--service-account-signing-key-file=" + p.path("sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=Node,RBAC",
		"--allow-privileged=true",
		"--profiling=false",
		"--event-ttl=1h",
	}, extra...)
	if err := parse("kube-apiserver", s.Flags().FlagSets, args); err != nil {
		return err
	}
	s.SecureServing.Listener = ln
	registry := s.GenericServerRunOptions.ComponentGlobalsRegistry
	if err := registry.Set(); err != nil {
		return err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	ctx := context.Background()
	completed, err := s.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return utilerrors.NewAggregate(errs)
	}
	c.component("kube-apiserver", 20*time.Second, func(ctx context.Context) error {
		return apiserverapp.Run(ctx, completed)
	})
	return nil
}

func (c *Cluster) waitReady(ctx context.Context, cfg *rest.Config) error {
	tr, err := rest.TransportFor(cfg)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: tr, Timeout: 5 * time.Second}
	deadline := time.Now().Add(2 * time.Minute)
	var last string
	for time.Now().Before(deadline) {
		resp, err := client.Get(cfg.Host + "/readyz")
		if err == nil {
			b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			last = string(b)
		} else {
			last = err.Error()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-c.Failed:
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("kube-apiserver not ready after 2m: %s", last)
}

func (c *Cluster) startControllerManager(p *pki, extra []string) error {
	s, err := cmoptions.NewKubeControllerManagerOptions()
	if err != nil {
		return err
	}
	fss := s.Flags(cmapp.KnownControllers(), cmapp.ControllersDisabledByDefault(), cmapp.ControllerAliases())
	args := append([]string{
		"--kubeconfig=" + p.path("controller-manager.kubeconfig"),
		"--secure-port=0", // no own port: several clusters live side by side
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + p.path("sa.key"),
		"--root-ca-file=" + p.path("ca.crt"),
		"--cluster-signing-cert-file=" + p.path("ca.crt"),
		"--cluster-signing-key-file=" + p.path("ca.key"),
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
		"--controller-start-interval=0",
	}, extra...)
	if err := parse("kube-controller-manager", fss.FlagSets, args); err != nil {
		return err
	}
	cfg, err := s.Config(context.Background(), cmapp.KnownControllers(), cmapp.ControllersDisabledByDefault(), cmapp.ControllerAliases())
	if err != nil {
		return err
	}
	c.component("kube-controller-manager", 20*time.Second, func(ctx context.Context) error {
		return cmapp.Run(ctx, cfg.Complete())
	})
	return nil
}

func (c *Cluster) startScheduler(p *pki, extra []string) error {
	o := schedoptions.NewOptions()
	args := append([]string{
		"--kubeconfig=" + p.path("scheduler.kubeconfig"),
		"--secure-port=0",
		"--leader-elect=false",
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
	}, extra...)
	if err := parse("kube-scheduler", o.Flags.FlagSets, args); err != nil {
		return err
	}
	var once sync.Once
	ready := make(chan error, 1)
	c.component("kube-scheduler", 20*time.Second, func(ctx context.Context) error {
		cc, sched, err := schedapp.Setup(ctx, o)
		once.Do(func() { ready <- err })
		if err != nil {
			return err
		}
		return schedapp.Run(ctx, cc, sched)
	})
	return <-ready
}
