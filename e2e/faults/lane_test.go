package faults

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/e2e/faults/proxy"
	"github.com/nexus-platform/reconciler/e2e/gitserver"
	"github.com/nexus-platform/reconciler/journal"
)

const (
	envName       = "web"
	folder        = "overlay"
	daemonAccount = "daemon"
	deployer      = "deployer"
	lease         = 2 * time.Second
	deadline      = 90 * time.Second // of every wait: generous, because the machine may be busy
	interval      = time.Second      // between two looks of a daemon at its branch
)

// lane is where runs follow one another: an environment, a daemon and a proxy of its own.
type lane struct {
	*site
	t       *testing.T
	options laneOptions
	ns      string // of the environment
	system  string // of the daemon
	uid     types.UID
	group   string // of the definition that the present run brings; empty: it brings none
	tick    int
	repo    *gitserver.Repo
	git     *gitserver.Server
	proxy   *proxy.Proxy
	journal *journal.Journal
	tokens  []string // of the daemons; the first is that of the only one, where there are not two
	log     string
	// disturbed is how often somebody interfered with a fixture, in all runs.
	disturbed int

	mu      sync.Mutex
	daemons map[string]*process // by token
	starts  []time.Time         // of daemons since the run began

	// Of the present run:
	begun      journal.Head // the head before it
	before     world
	violations []string
	newer      string          // a commit that arrived in the middle
	withdrawn  bool            // it declares what was there before
	undone     int             // faults that found nothing to be done to
	replaced   map[string]bool // names of objects that somebody deleted
	lost       string          // which bundle somebody deleted
	history    []proxy.Write
	traced     []string // boundaries that were reached
	boundary   string   // at which a failpoint kills the daemon

	old, new map[string]string // golden states
}

type laneOptions struct {
	small    bool          // the small release
	outside  bool          // there is a second namespace, which the release brings
	baseline bool          // no daemon of ours, but the loop that it is compared with
	disk     string        // the daemon's cache is on a disk of this size
	twins    bool          // two daemons, of which the one with the Lease acts
	env      []string      // of the daemons
	later    []string      // of those that are started again in the middle of a run
	outage   time.Duration // how long nobody answers, where that is the fault
}

func newLane(t *testing.T, s *site, o laneOptions) (*lane, error) {
	l := &lane{site: s, t: t, options: o, git: gitserver.Start(t)}
	l.repo = l.git.Init("config")
	id := s.number()
	l.ns, l.system = fmt.Sprintf("lane-%s-%d", s.mark, id), fmt.Sprintf("system-%s-%d", s.mark, id)
	l.log = filepath.Join(s.dir, l.ns+".log")
	if err := l.identities(); err != nil {
		return nil, err
	}
	l.proxy = &proxy.Proxy{
		Config: s.config, System: l.system, LateBy: lease + 5*time.Second, Meanwhile: l.meanwhile, Deciding: l.rolledOut,
		Kill: func(w proxy.Write) { l.by(w).kill() },
	}
	if err := l.proxy.Start(); err != nil {
		return nil, err
	}
	t.Cleanup(l.proxy.Close)
	if err := l.kubeconfigs(); err != nil {
		return nil, err
	}
	t.Cleanup(l.halt)
	if o.baseline {
		return l, l.foundBaseline()
	}
	return l, l.found()
}

// identities makes the namespaces and accounts of the lane.
func (l *lane) identities() error {
	ctx := l.t.Context()
	everything := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"}
	at := func(ns, name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: ns, Name: name} }
	for _, o := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: l.ns}}, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: l.system}},
		&corev1.ServiceAccount{ObjectMeta: at(l.system, daemonAccount)}, &corev1.ServiceAccount{ObjectMeta: at(l.ns, deployer)},
		&rbacv1.ClusterRoleBinding{ObjectMeta: at("", l.ns), RoleRef: everything, Subjects: []rbacv1.Subject{
			{Kind: "ServiceAccount", Namespace: l.system, Name: daemonAccount}, {Kind: "ServiceAccount", Namespace: l.ns, Name: deployer},
		}},
	} {
		if err := l.client.Create(ctx, o); err != nil {
			return fmt.Errorf("set up a lane: %w", err)
		}
	}
	l.t.Cleanup(func() { // the test's context has ended by then
		// No daemon is left that would take its finalizer away; and the control plane tries to empty a namespace without end, some
		// hundred requests a second.
		env := &v1alpha1.Environment{ObjectMeta: metav1.ObjectMeta{Namespace: l.ns, Name: envName}}
		_ = l.client.Patch(context.Background(), env, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))
		if l.group != "" {
			_ = l.dynamic.Resource(crds).Delete(context.Background(), "widgets."+l.group, metav1.DeleteOptions{})
		}
		for _, o := range []client.Object{
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: l.ns}}, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: l.system}},
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: l.outside()}},
			&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: l.ns}},
		} {
			_ = l.client.Delete(context.Background(), o)
		}
	})
	return nil
}

// kubeconfigs are the daemons' ways to the API server, each with a token of its own.
func (l *lane) kubeconfigs() error {
	hours := int64(24 * 3600)
	l.daemons = map[string]*process{}
	for range map[bool]int{true: 2, false: 1}[l.options.twins] {
		token, err := l.kube.CoreV1().ServiceAccounts(l.system).CreateToken(l.t.Context(), daemonAccount,
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hours}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		cfg := clientcmdapi.NewConfig()
		cfg.Clusters["test"] = &clientcmdapi.Cluster{Server: l.proxy.URL, CertificateAuthorityData: l.proxy.CA}
		cfg.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
		cfg.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
		cfg.CurrentContext = "test"
		if err := clientcmd.WriteToFile(*cfg, l.config(len(l.tokens))); err != nil {
			return err
		}
		l.tokens = append(l.tokens, token.Status.Token)
	}
	return nil
}

// config is the kubeconfig of a daemon.
func (l *lane) config(i int) string {
	return filepath.Join(l.dir, fmt.Sprintf("%s-%d.kubeconfig", l.ns, i))
}

// found deploys the base, and learns how the cluster looks before the release and after it.
func (l *lane) found() error {
	ctx := l.t.Context()
	if err := l.supervise(l.options.env); err != nil {
		return err
	}
	first := l.push("base", l.base())
	env := &v1alpha1.Environment{
		ObjectMeta: metav1.ObjectMeta{Name: envName, Namespace: l.ns},
		Spec: v1alpha1.EnvironmentSpec{
			Source: v1alpha1.Source{URL: "file://" + l.git.Dir("config"), Branch: "main"}, Path: folder,
			Interval: &metav1.Duration{Duration: interval}, ServiceAccountName: deployer,
			Scope: v1alpha1.Scope{ClusterKinds: []string{"CustomResourceDefinition"}},
		},
	}
	if l.options.outside {
		env.Spec.Scope = v1alpha1.Scope{Namespaces: []string{l.ns, l.outside()}}
	}
	if err := l.client.Create(ctx, env); err != nil {
		return err
	}
	l.uid = env.UID
	l.journal = &journal.Journal{
		Secrets: l.kube.CoreV1().Secrets(l.system), Environment: l.uid, Now: time.Now,
		Metadata: l.metadata.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(l.system),
	}
	if _, err := l.ends(first); err != nil {
		return fmt.Errorf("the first release: %w", err)
	}
	for _, golden := range []*map[string]string{&l.old, &l.new} {
		if err := l.prepare(ctx); err != nil {
			return err
		}
		if golden == &l.new {
			end, err := l.ends(l.push("golden", l.next(false)))
			if err != nil || end != "Succeeded" {
				return fmt.Errorf("the golden release ended as %s: %w", end, err)
			}
		}
		w, err := l.look(ctx)
		if err != nil {
			return err
		}
		*golden = w.generalized(l.group)
	}
	return l.goBack()
}

// goBack releases the base again: the next good commit after whatever happened.
func (l *lane) goBack() error {
	end, err := l.ends(l.push("back", l.base()))
	if err == nil && end != "Succeeded" {
		err = fmt.Errorf("the next good commit ended as %s", end)
	}
	return err
}

func (l *lane) base() map[string]string {
	l.tick++
	if l.options.outside {
		return l.addOutside(smallBase(l.tick), "1")
	}
	if l.options.small {
		return smallBase(l.tick)
	}
	return base(l.tick)
}

func (l *lane) next(bad bool) map[string]string {
	l.tick++
	if l.options.outside {
		return l.addOutside(small(l.tick, bad), "2")
	}
	if l.options.small {
		return small(l.tick, bad)
	}
	return next(l.tick, bad, l.group)
}

// prepare makes what does not belong to the environment as the release expects it: an object to adopt, and no definition.
func (l *lane) prepare(ctx context.Context) error {
	if l.options.small {
		return nil
	}
	theirs := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "theirs", Namespace: l.ns}}
	if err := client.IgnoreNotFound(l.client.Delete(ctx, theirs)); err != nil {
		return err
	}
	theirs = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "theirs", Namespace: l.ns}, Data: map[string]string{"key": "theirs", "more": "theirs"}}
	if err := l.client.Create(ctx, theirs, client.FieldOwner("somebody")); err != nil {
		return err
	}
	if l.group != "" {
		err := l.dynamic.Resource(crds).Delete(ctx, "widgets."+l.group, metav1.DeleteOptions{})
		if client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	l.group = ""
	if brings := l.site.number(); brings%definitionEvery == 0 {
		l.group = fmt.Sprintf("g%d-%s.example.com", brings, l.mark)
	}
	return nil
}

// definitionEvery is how many runs there are to one that brings a definition: each costs the API server much work.
const definitionEvery = 1

// push commits an overlay of these files and returns the commit.
func (l *lane) push(message string, files map[string]string) string {
	l.repo.Git("rm", "-r", "-q", "--ignore-unmatch", folder)
	names := []string{}
	for name, content := range files {
		l.repo.Write(folder+"/"+name, content)
		names = append(names, name)
	}
	slices.Sort(names)
	l.repo.Write(folder+"/release.yaml", policy)
	inside := "namespace: " + l.ns + "\n"
	if l.options.outside { // each object says itself where it is
		inside = ""
	}
	l.repo.Write(folder+"/kustomization.yaml", fmt.Sprintf(
		"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n%sresources: [%s]\n", inside, strings.Join(names, ", ")))
	hash := l.repo.Commit(message)
	l.repo.Push()
	return hash
}
