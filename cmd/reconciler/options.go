package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/controller"
	"github.com/nexus-platform/reconciler/failpoint"
	"github.com/nexus-platform/reconciler/gitsource"
	"github.com/nexus-platform/reconciler/render"
)

// options are what every verb shares: kubectl's own flags, and where output goes.
type options struct {
	config *genericclioptions.ConfigFlags
	system string // namespace of the reconciler
}

func newOptions() *options {
	o := &options{config: genericclioptions.NewConfigFlags(true), system: "nexus-system"}
	// Beside those of the verbs, the flags that choose a cluster are enough.
	o.config.CacheDir, o.config.Username, o.config.Password = nil, nil, nil
	return o
}

func scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(s); err != nil {
		return nil, err
	}
	return s, v1alpha1.AddToScheme(s)
}

// cluster returns a client, its configuration and the namespace that --namespace or the context names.
func (o *options) cluster() (client.Client, *rest.Config, string, error) {
	if !o.named() {
		return nil, nil, "", errors.New("no cluster is named: set KUBECONFIG, or use --kubeconfig and --context")
	}
	cfg, err := o.config.ToRESTConfig()
	if err != nil {
		return nil, nil, "", fmt.Errorf("%w; name a cluster by KUBECONFIG, --kubeconfig or --context", err)
	}
	cfg.QPS, cfg.Burst = -1, -1
	cfg.UserAgent = "reconciler/" + version
	s, err := scheme()
	if err != nil {
		return nil, nil, "", err
	}
	c, err := client.New(cfg, client.Options{Scheme: s})
	if err != nil {
		return nil, nil, "", err
	}
	ns, _, err := o.config.ToRawKubeConfigLoader().Namespace()
	return c, cfg, ns, err
}

// named reports that flags, files or the pod that we run in name a cluster. Without one, client-go would ask localhost:8080.
func (o *options) named() bool {
	raw, err := o.config.ToRawKubeConfigLoader().RawConfig()
	if err != nil || !clientcmdapi.IsConfigEmpty(&raw) || *o.config.APIServer != "" {
		return true // an error is told with its cause by whoever reads the configuration next
	}
	_, err = rest.InClusterConfig()
	return err == nil
}

// environment reads the Environment that a verb is about: by name from the cluster, or from a file.
func (o *options) environment(ctx context.Context, name, file string) (*v1alpha1.Environment, *rest.Config, client.Client, error) {
	c, cfg, ns, err := o.cluster()
	if err != nil {
		return nil, nil, nil, err
	}
	env := &v1alpha1.Environment{}
	switch {
	case file != "" && name != "":
		return nil, nil, nil, errors.New("give the name of an environment or -f, not both")
	case file != "":
		if env, err = readEnvironment(file); err != nil {
			return nil, nil, nil, err
		}
		if env.Namespace == "" {
			env.Namespace = ns
		}
	case name != "":
		if err := c.Get(ctx, client.ObjectKey{Namespace: ns, Name: name}, env); err != nil {
			return nil, nil, nil, fmt.Errorf("environment %s in namespace %s: %w", name, ns, err)
		}
	default:
		return nil, nil, nil, errors.New("name an environment, or give one with -f FILE")
	}
	return env, cfg, c, nil
}

// readEnvironment reads a file strictly. Without a UID from the cluster, its name is its identity.
func readEnvironment(file string) (*v1alpha1.Environment, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	env := &v1alpha1.Environment{}
	if err := yaml.UnmarshalStrict(b, env); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if env.Kind != "Environment" || env.APIVersion != v1alpha1.GroupVersion.String() {
		return nil, fmt.Errorf("%s: is %s %s, not %s Environment", file, env.APIVersion, env.Kind, v1alpha1.GroupVersion)
	}
	if env.Name == "" || env.Spec.ServiceAccountName == "" || env.Spec.Path == "" || env.Spec.Source.URL == "" {
		return nil, fmt.Errorf("%s: metadata.name, spec.source.url, spec.path and spec.serviceAccountName are needed", file)
	}
	if env.UID == "" {
		env.UID = types.UID("file-" + env.Namespace + "-" + env.Name)
	}
	return env, nil
}

// assembly is what the verbs that act themselves put reconcilers together with.
func (o *options) assembly(cfg *rest.Config, cache string, log *slog.Logger) (*controller.Assembly, error) {
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("%w; name a folder for the Git mirrors by --cache-dir", err)
		}
		cache = filepath.Join(dir, "nexus")
	}
	return &controller.Assembly{
		Config: cfg, Namespace: o.system, Log: log, Now: failpoint.Now,
		Mirrors:  &gitsource.Mirrors{Dir: filepath.Join(cache, "mirrors"), Limits: gitsource.DefaultLimits()},
		Renderer: &render.Renderer{Limits: render.DefaultLimits(), Parallel: 2},
	}, nil
}

// completeEnv makes the shell complete the names of environments.
func (o *options) completeEnv(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, _, ns, err := o.cluster()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var list v1alpha1.EnvironmentList
	if err := c.List(cmd.Context(), &list, client.InNamespace(ns)); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names := make([]string, len(list.Items))
	for i := range list.Items {
		names[i] = list.Items[i].Name
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
