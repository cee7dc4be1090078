// Package controller turns Environment resources into running reconcilers and shows what they do as status, Release resources and events.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/gitsource"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/kube"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/reconcile"
	"github.com/nexus-platform/reconciler/render"
)

// Assembly holds what all environments share and puts a reconciler together for each.
type Assembly struct {
	Config    *rest.Config // of the cluster that the Environments live in
	Namespace string       // of the reconciler: journals of environments of this cluster lie here
	Mirrors   *gitsource.Mirrors
	Renderer  *render.Renderer
	Log       *slog.Logger
	Now       func() time.Time
}

// Assembled is a reconciler with what has to be closed after it.
type Assembled struct {
	*reconcile.Reconciler
	Cluster *kube.Cluster
	Home    *rest.Config // of the target cluster, not impersonating
}

// Close ends the watches.
func (a *Assembled) Close() { a.Cluster.Close() }

// ConfigError says that an Environment cannot work as it is written; a person mends it.
type ConfigError struct {
	Field string
	Err   error
}

func (e *ConfigError) Error() string { return e.Field + ": " + e.Err.Error() }

func (e *ConfigError) Unwrap() error { return e.Err }

// Assemble puts the reconciler of one environment together. changed is called when something of it changes in the cluster.
func (a *Assembly) Assemble(ctx context.Context, env *v1alpha1.Environment, changed func(), observe func(reconcile.Event)) (*Assembled, error) {
	secrets, err := kubernetes.NewForConfig(a.Config)
	if err != nil {
		return nil, err
	}
	keys := secretReader{ctx: ctx, client: secrets, namespace: env.Namespace}
	repository, err := a.repository(env, keys)
	if err != nil {
		return nil, err
	}
	if err := a.account(ctx, env, secrets); err != nil {
		return nil, err
	}
	home, journalNamespace, err := a.target(env, keys)
	if err != nil {
		return nil, err
	}
	log, err := a.journal(env, home, journalNamespace)
	if err != nil {
		return nil, err
	}
	r := &reconcile.Reconciler{
		Environment: env, Repository: repository, Journal: log, System: a.Namespace, Log: a.Log, Now: a.Now, Observe: observe,
	}
	cluster := &kube.Cluster{
		Config:      kube.Impersonate(home, env.Namespace, env.Spec.ServiceAccountName),
		Environment: env.UID,
		Namespaces:  watched(env),
		Changed: func(ref object.Ref) {
			r.Changed(ref)
			changed()
		},
	}
	if err := cluster.Open(); err != nil {
		return nil, err
	}
	r.Cluster = cluster
	return &Assembled{Reconciler: r, Cluster: cluster, Home: home}, nil
}

// journal of an environment, in a namespace of its target cluster.
func (a *Assembly) journal(env *v1alpha1.Environment, home *rest.Config, namespace string) (*journal.Journal, error) {
	client, err := kubernetes.NewForConfig(home)
	if err != nil {
		return nil, err
	}
	secretMetadata, err := metadata.NewForConfig(home)
	if err != nil {
		return nil, err
	}
	return &journal.Journal{
		Secrets: client.CoreV1().Secrets(namespace), Metadata: secretMetadata.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(namespace),
		Namespace: namespace, Environment: env.UID, Now: a.Now,
	}, nil
}

// forget deletes the journal of an environment that is gone. One that cannot be reached any more, because what leads to its cluster
// is gone too, is left.
func (a *Assembly) forget(ctx context.Context, env *v1alpha1.Environment) error {
	clients, err := kubernetes.NewForConfig(a.Config)
	if err != nil {
		return err
	}
	home, namespace, err := a.target(env, secretReader{ctx: ctx, client: clients, namespace: env.Namespace})
	var config *ConfigError
	if errors.As(err, &config) || apierrors.IsForbidden(err) {
		return nil
	}
	if err != nil {
		return err
	}
	log, err := a.journal(env, home, namespace)
	if err != nil {
		return err
	}
	return log.Delete(ctx)
}

// account refuses an account that there is not. The API server would let us act as one all the same, with the
// rights that bindings still give to its name: an administrator who deleted it means that to end.
func (a *Assembly) account(ctx context.Context, env *v1alpha1.Environment, clients kubernetes.Interface) error {
	if env.Spec.Cluster != nil {
		return nil // it is an account of the other cluster
	}
	_, err := clients.CoreV1().ServiceAccounts(env.Namespace).Get(ctx, env.Spec.ServiceAccountName, metav1.GetOptions{})
	name := env.Namespace + "/" + env.Spec.ServiceAccountName
	switch {
	case apierrors.IsNotFound(err):
		return &ConfigError{Field: "spec.serviceAccountName", Err: fmt.Errorf("service account %s does not exist: create it, and bind it to what commits may do", name)}
	case apierrors.IsForbidden(err):
		return &ConfigError{Field: "spec.serviceAccountName", Err: fmt.Errorf("the daemon may not act as %s: apply manifests/environment in its namespace, or name the account in its Role (%w)", name, err)}
	case err != nil:
		return fmt.Errorf("read service account %s: %w", name, err)
	}
	return nil
}

// renew reads the credentials of the repository again: they may have been rotated. The environment's turn is the caller's.
func (a *Assembly) renew(ctx context.Context, run *Assembled) {
	secrets, err := kubernetes.NewForConfig(a.Config)
	if err != nil {
		return
	}
	repository, err := a.repository(run.Environment, secretReader{ctx: ctx, client: secrets, namespace: run.Environment.Namespace})
	if err == nil { // else the old ones go on failing, and that is told already
		run.Repository = repository
	}
}

// target is the cluster that is deployed into, and the namespace of its journal.
func (a *Assembly) target(env *v1alpha1.Environment, keys secretReader) (*rest.Config, string, error) {
	if env.Spec.Cluster == nil {
		return rest.CopyConfig(a.Config), a.Namespace, nil
	}
	ref := env.Spec.Cluster.SecretRef
	key := ref.Key
	if key == "" {
		key = "kubeconfig"
	}
	secret, err := keys.read("spec.cluster.secretRef", ref.Name)
	if err != nil {
		return nil, "", err
	}
	cfg, err := kubeconfig(secret.Data[key])
	if err != nil {
		return nil, "", &ConfigError{Field: fmt.Sprintf("spec.cluster.secretRef: key %s of Secret %s", key, ref.Name), Err: err}
	}
	namespace := env.Spec.Cluster.Namespace
	if namespace == "" {
		namespace = a.Namespace
	}
	return cfg, namespace, nil
}

// kubeconfig reads a kubeconfig that must stand by itself: a plugin or a file that it
// names would be started, or read, with the rights of this process.
func kubeconfig(b []byte) (*rest.Config, error) {
	if len(b) == 0 {
		return nil, errors.New("is empty or missing")
	}
	c, err := clientcmd.Load(b)
	if err != nil {
		return nil, errors.New("is not a kubeconfig")
	}
	for name, user := range c.AuthInfos {
		if fault := foreignReference(user); fault != "" {
			return nil, fmt.Errorf("user %s: %s is refused: write the credentials into the kubeconfig", name, fault)
		}
	}
	for name, cluster := range c.Clusters {
		if cluster.CertificateAuthority != "" {
			return nil, fmt.Errorf("cluster %s: certificate-authority names a file: use certificate-authority-data", name)
		}
	}
	return clientcmd.NewDefaultClientConfig(*c, nil).ClientConfig()
}

func foreignReference(u *clientcmdapi.AuthInfo) string {
	switch {
	case u.Exec != nil:
		return "an exec plugin"
	case u.AuthProvider != nil:
		return "an auth provider"
	case u.TokenFile != "":
		return "tokenFile"
	case u.ClientCertificate != "" || u.ClientKey != "":
		return "a certificate file"
	case u.Impersonate != "":
		return "impersonation"
	}
	return ""
}

// watched are the namespaces of the watches; none means all.
func watched(env *v1alpha1.Environment) []string {
	if slices.Contains(env.Spec.Scope.Namespaces, "*") {
		return nil
	}
	if len(env.Spec.Scope.Namespaces) == 0 {
		return []string{env.Namespace}
	}
	return slices.Sorted(slices.Values(env.Spec.Scope.Namespaces))
}

// secretReader reads Secrets of the environment's namespace.
type secretReader struct {
	ctx       context.Context //nolint:containedctx // lives for one Assemble
	client    kubernetes.Interface
	namespace string
}

func (s secretReader) read(field, name string) (*corev1.Secret, error) {
	secret, err := s.client.CoreV1().Secrets(s.namespace).Get(s.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, &ConfigError{Field: field, Err: fmt.Errorf("Secret %s/%s does not exist: create it", s.namespace, name)}
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", s.namespace, name, err)
	}
	return secret, nil
}

// repository connects the environment with the mirror of its branch.
func (a *Assembly) repository(env *v1alpha1.Environment, keys secretReader) (*repository, error) {
	src := env.Spec.Source
	remote := gitsource.Remote{URL: src.URL, Proxy: gitsource.Secret(src.Proxy)}
	if src.SecretRef != nil {
		secret, err := keys.read("spec.source.secretRef", src.SecretRef.Name)
		if err != nil {
			return nil, err
		}
		remote.Credential = secret.Namespace + "/" + secret.Name
		remote.Username = string(secret.Data["username"])
		remote.Password = gitsource.Secret(secret.Data["password"])
		remote.Token = gitsource.Secret(secret.Data["token"])
		remote.SSHKey = gitsource.Secret(secret.Data["identity"])
		remote.SSHPassphrase = gitsource.Secret(secret.Data["passphrase"])
		remote.KnownHosts = secret.Data["known_hosts"]
		remote.CABundle = secret.Data["ca.crt"]
		if proxy := secret.Data["proxy"]; len(proxy) > 0 {
			remote.Proxy = gitsource.Secret(proxy)
		}
	}
	if err := remote.Validate(); err != nil {
		return nil, &ConfigError{Field: "spec.source", Err: err}
	}
	mirror, err := a.Mirrors.Open(remote)
	if err != nil {
		return nil, err
	}
	branch := src.Branch
	if branch == "" {
		branch = "main"
	}
	r := &repository{
		renderer: a.Renderer, path: env.Spec.Path,
		source: &gitsource.Source{Mirror: mirror, Branch: branch, Rewrite: gitsource.Rewrite(src.Rewrite), Now: a.Now},
	}
	if src.Signatures != nil {
		if r.source.Signatures, err = signatures(src.Signatures, keys); err != nil {
			return nil, err
		}
	}
	if env.Spec.Decryption != nil {
		secret, err := keys.read("spec.decryption.secretRef", env.Spec.Decryption.SecretRef.Name)
		if err != nil {
			return nil, err
		}
		for key, value := range secret.Data {
			if strings.HasSuffix(key, ".agekey") {
				r.ageKeys = append(r.ageKeys, string(value))
			}
		}
		slices.Sort(r.ageKeys)
		if len(r.ageKeys) == 0 {
			return nil, &ConfigError{Field: "spec.decryption.secretRef", Err: fmt.Errorf("Secret %s has no key that ends in .agekey", secret.Name)}
		}
	}
	return r, nil
}

// signatures reads the trusted keys: armored GPG keys under names that end in .asc, SSH keys in allowed_signers.
func signatures(want *v1alpha1.Signatures, keys secretReader) (*gitsource.Signatures, error) {
	secret, err := keys.read("spec.source.signatures.secretRef", want.SecretRef.Name)
	if err != nil {
		return nil, err
	}
	var rings []byte
	for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
		if strings.HasSuffix(key, ".asc") {
			rings = append(append(rings, secret.Data[key]...), '\n')
		}
	}
	s, err := gitsource.ParseSignatures(rings, secret.Data["allowed_signers"], secret.Data["revoked_keys"])
	if err != nil {
		return nil, &ConfigError{Field: "spec.source.signatures.secretRef", Err: err}
	}
	s.Every = want.Commits == "all"
	return s, nil
}

// repository is a reconcile.Repository.
type repository struct {
	source   *gitsource.Source
	renderer *render.Renderer
	path     string
	ageKeys  []string
}

func (r *repository) Tip(ctx context.Context) (string, error) { return r.source.Tip(ctx) }

func (r *repository) Commit(ctx context.Context, hash, good string) (gitsource.Commit, error) {
	return r.source.Fetch(ctx, hash, good)
}

func (r *repository) Render(ctx context.Context, hash string) (*render.Result, error) {
	tree, err := r.source.Mirror.Tree(ctx, hash)
	if err != nil {
		return nil, err
	}
	return r.renderer.Render(ctx, render.Request{Tree: tree, Path: r.path, AgeKeys: r.ageKeys})
}
