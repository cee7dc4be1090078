package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/e2e/cluster"
)

const (
	systemNamespace = "nexus-system"
	// deadline of every wait: generous, because the machine may be busy. A test that passes never gets near it.
	deadline = 90 * time.Second
)

// site is a control plane as its administrator sees it.
type site struct {
	*cluster.Cluster
	config *rest.Config
	client client.Client
	kube   *kubernetes.Clientset
	dir    string // for kubeconfigs, logs and mirrors
	seq    int
}

func newSite(tb testing.TB, c *cluster.Cluster, dir string) *site {
	tb.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	s := &site{Cluster: c, dir: dir}
	scheme := runtime.NewScheme()
	err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme))
	if err != nil {
		tb.Fatal(err)
	}
	if s.config, err = c.Config(); err != nil {
		tb.Fatal(err)
	}
	if s.client, err = client.New(s.config, client.Options{Scheme: scheme}); err != nil {
		tb.Fatal(err)
	}
	if s.kube, err = kubernetes.NewForConfig(s.config); err != nil {
		tb.Fatal(err)
	}
	return s
}

// install installs what a daemon that runs outside the cluster needs.
func (s *site) install(tb testing.TB) {
	tb.Helper()
	if r := s.cli(tb, "default", "install", "--without-daemon"); r.code != 0 {
		tb.Fatalf("install: exit code %d\n%s%s", r.code, r.out, r.err)
	}
}

// daemonKubeconfig is the kubeconfig of the service account that the install made.
func (s *site) daemonKubeconfig(tb testing.TB) string {
	tb.Helper()
	return s.accountKubeconfig(tb, systemNamespace, "nexus-reconciler", s.config.Host, s.config.CAData)
}

// accountKubeconfig is a kubeconfig of a service account, for an API server or a proxy before it.
func (s *site) accountKubeconfig(tb testing.TB, namespace, account, server string, ca []byte) string {
	tb.Helper()
	hour := int64(3600)
	token, err := s.kube.CoreV1().ServiceAccounts(namespace).CreateToken(context.Background(), account,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hour}}, metav1.CreateOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	return s.writeKubeconfig(tb, server, ca, token.Status.Token)
}

func (s *site) writeKubeconfig(tb testing.TB, server string, ca []byte, token string) string {
	tb.Helper()
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["test"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	cfg.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: token}
	cfg.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	cfg.CurrentContext = "test"
	f, err := os.CreateTemp(s.dir, "kubeconfig-")
	if err != nil {
		tb.Fatal(err)
	}
	if err := errors.Join(f.Close(), clientcmd.WriteToFile(*cfg, f.Name())); err != nil {
		tb.Fatal(err)
	}
	return f.Name()
}

// process is a daemon.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; read after done
	log  string
}

// spawn starts a daemon. It ends with stop or kill.
func (s *site) spawn(tb testing.TB, kubeconfig string, args ...string) *process {
	tb.Helper()
	return s.spawnBinary(tb, binary(tb), nil, kubeconfig, args...)
}

// spawnBinary starts a daemon of another build, with more in its environment.
func (s *site) spawnBinary(tb testing.TB, path string, env []string, kubeconfig string, args ...string) *process {
	tb.Helper()
	s.seq++
	p := &process{done: make(chan struct{}), log: filepath.Join(s.dir, fmt.Sprintf("daemon-%d.log", s.seq))}
	log, err := os.Create(p.log)
	if err != nil {
		tb.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(path, append([]string{"run", "--kubeconfig", kubeconfig, "--cache-dir", filepath.Join(s.dir, "cache"),
		"--health-address", "127.0.0.1:0", "--metrics-address", "0", "--lease-duration", "3s", "--log-level", "debug"}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = environment(s.dir, env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	return p
}

// daemon is spawn for one test: the daemon ends with it.
func (s *site) daemon(tb testing.TB, kubeconfig string, args ...string) *process {
	tb.Helper()
	p := s.spawn(tb, kubeconfig, args...)
	tb.Cleanup(func() {
		if err := p.stop(); err != nil {
			tb.Error(err)
		}
		if tb.Failed() {
			tb.Logf("end of the daemon's log:\n%s", p.tail(40))
		}
	})
	return p
}

// stop asks the daemon to end and waits for it. It must obey, in time and without an error, and the race detector must have found nothing.
func (p *process) stop() error {
	if p.ended() {
		return p.verdict()
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return p.verdict()
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // its log then shows where it hangs
		<-p.done
		return fmt.Errorf("the daemon did not stop; see the end of its log:\n%s", p.tail(200))
	}
}

// verdict is how it ended. A test that killed it does not ask.
func (p *process) verdict() error {
	b, err := os.ReadFile(p.log)
	switch {
	case err != nil:
		return err
	case bytes.Contains(b, []byte("DATA RACE")), bytes.Contains(b, []byte("panic")):
		_, trace, _ := strings.Cut(string(b), "DATA RACE")
		return fmt.Errorf("a race or a panic in the daemon:\n%.4000s", trace)
	case p.err != nil && !p.killed():
		return fmt.Errorf("the daemon ended by itself: %w\n%s", p.err, p.tail(20))
	}
	return nil
}

func (p *process) killed() bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// kill ends the daemon as a power cut would.
func (p *process) kill(tb testing.TB) {
	tb.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		tb.Fatal(err)
	}
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// tail is the end of the log.
func (p *process) tail(lines int) string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// environment is what the binary sees of ours: nothing of the person who runs the tests.
func environment(home string, more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "LC_ALL=C", "TERM=xterm", "USER=tester"}, more...)
}

// result is what one call of the command line left behind.
type result struct {
	out, err string
	code     int
}

// cli runs a verb as the administrator in a namespace.
func (s *site) cli(tb testing.TB, namespace string, args ...string) result {
	tb.Helper()
	return s.run(tb, []string{"KUBECONFIG=" + s.Kubeconfig}, append(args, "--namespace", namespace)...)
}

func (s *site) run(tb testing.TB, env []string, args ...string) result {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(tb), args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.Env = environment(s.dir, env...)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		tb.Fatalf("reconciler %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errOut.String())
	}
	return result{out: out.String(), err: errOut.String(), code: cmd.ProcessState.ExitCode()}
}

// until waits for a condition; state says, after the deadline, what there was instead.
func until(tb testing.TB, what string, ok func() bool, state ...func() string) {
	tb.Helper()
	limit := time.After(deadline)
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit:
			for _, s := range state {
				what += "; " + s()
			}
			tb.Fatalf("waited %s for %s", deadline, what)
		case <-tick.C:
		}
	}
}
