package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
)

var demoEnvironments = []string{"staging", "production"}

// install installs CRDs and rights, makes the environments, and starts the daemon with nothing but the rights that install grants.
func (s *stage) install(ctx context.Context) error {
	objects, err := installation(ctx, installFlags{noDaemon: true})
	if err != nil {
		return err
	}
	if err := applyAll(ctx, io.Discard, s.client, objects, false); err != nil {
		return err
	}
	if err := waitServed(ctx, s.client, s.config); err != nil {
		return err
	}
	s.passed("installed CRDs and rights")
	for _, name := range demoEnvironments {
		if err := s.environment(ctx, name); err != nil {
			return fmt.Errorf("environment %s: %w", name, err)
		}
	}
	s.passed("environments staging and production, of one repository")
	return s.start(ctx)
}

func demoNamespace(env string) string { return "platform-" + env }

// environment makes namespace, identity, rights, the Secret that is not in Git, and the Environment.
func (s *stage) environment(ctx context.Context, name string) error {
	ns := demoNamespace(name)
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: ns} }
	account := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "deployer", Namespace: ns}}
	daemon := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "nexus-reconciler", Namespace: "nexus-system"}}
	objects := []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}},
		&corev1.ServiceAccount{ObjectMeta: meta("deployer")},
		&rbacv1.RoleBinding{ObjectMeta: meta("deployer"), Subjects: account, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"}},
		&rbacv1.Role{ObjectMeta: meta("nexus-reconciler"), Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, ResourceNames: []string{"deployer"}, Verbs: []string{"impersonate", "get"}},
		}},
		&rbacv1.RoleBinding{ObjectMeta: meta("nexus-reconciler"), Subjects: daemon, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "nexus-reconciler"}},
		&corev1.Secret{ObjectMeta: meta("postgres-credentials"), StringData: map[string]string{"password": "correct-horse-battery-staple"}},
		&v1alpha1.Environment{ObjectMeta: meta(name), Spec: v1alpha1.EnvironmentSpec{
			Source:   v1alpha1.Source{URL: s.repo.url(), Branch: "main"},
			Path:     "overlays/" + name,
			Interval: &metav1.Duration{Duration: time.Second}, ServiceAccountName: "deployer",
		}},
	}
	for _, obj := range objects {
		if err := s.client.Create(ctx, obj); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create %T %s: %w", obj, obj.GetName(), err)
		}
	}
	return nil
}

// daemon is the reconciler as a process of its own, so that it can be killed.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// start runs the daemon as its service account.
func (s *stage) start(ctx context.Context) error {
	config, err := s.daemonKubeconfig(ctx)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	s.daemonLog = filepath.Join(s.dir, "daemon.log")
	log, err := os.OpenFile(s.daemonLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(exe, "run", "--kubeconfig", config, "--cache-dir", filepath.Join(s.dir, "cache"),
		"--health-address", "127.0.0.1:0", "--metrics-address", "0", "--lease-duration", "3s")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to pass on
	if err := cmd.Start(); err != nil {
		return err
	}
	s.daemon = &daemon{cmd: cmd, done: make(chan struct{})}
	go func(d *daemon) {
		defer close(d.done)
		_ = d.cmd.Wait() // how it ended is in its log
	}(s.daemon)
	s.passed("daemon started as process %d, with the rights of the install and no more", cmd.Process.Pid)
	return nil
}

// daemonKubeconfig writes a kubeconfig with a token of the daemon's service account.
func (s *stage) daemonKubeconfig(ctx context.Context) (string, error) {
	clients, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		return "", err
	}
	hour := int64(6 * 3600)
	token, err := clients.CoreV1().ServiceAccounts("nexus-system").CreateToken(ctx, "nexus-reconciler",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hour}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of the daemon: %w", err)
	}
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["demo"] = &clientcmdapi.Cluster{Server: s.config.Host, CertificateAuthorityData: s.config.CAData, CertificateAuthority: s.config.CAFile}
	cfg.AuthInfos["daemon"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	cfg.Contexts["demo"] = &clientcmdapi.Context{Cluster: "demo", AuthInfo: "daemon"}
	cfg.CurrentContext = "demo"
	path := filepath.Join(s.dir, "daemon.kubeconfig")
	return path, clientcmd.WriteToFile(*cfg, path)
}

// kill ends the daemon as a power cut would.
func (d *daemon) kill() error {
	if err := d.cmd.Process.Kill(); err != nil {
		return err
	}
	<-d.done
	return nil
}

// stop asks the daemon to end, and does not wait for ever.
func (d *daemon) stop() {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return
	}
	select {
	case <-d.done:
	case <-time.After(10 * time.Second):
		_ = d.kill()
	}
}
