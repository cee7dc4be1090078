package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/manifests"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/render"
)

// installFlags choose what is installed.
type installFlags struct {
	image      string
	components []string
	noDaemon   bool
}

func newInstall(o *options) *cobra.Command {
	var f installFlags
	var export, dryRun bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the CRDs, the rights and the Deployment of the daemon, or print them",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&export, "export", false, "print the manifests instead of applying them")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "let the API server check everything, and write nothing")
	cmd.Flags().StringVar(&f.image, "image", "", "image of the daemon; default: nexus-platform/reconciler:VERSION")
	cmd.Flags().StringSliceVar(&f.components, "component", nil, "also install: servicemonitor, high-availability")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "how long to wait for the daemon to run; 0: not at all")
	cmd.Flags().BoolVar(&f.noDaemon, "without-daemon", false, "only namespace, CRDs and rights, for a daemon that runs elsewhere")
	_ = cmd.RegisterFlagCompletionFunc("component", cobra.FixedCompletions([]string{"servicemonitor", "high-availability"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		objects, err := installation(cmd.Context(), f)
		if err != nil {
			return err
		}
		if export {
			return exportAll(cmd.OutOrStdout(), objects)
		}
		c, cfg, _, err := o.cluster()
		if err != nil {
			return err
		}
		ctx, w := cmd.Context(), cmd.OutOrStdout()
		if err := applyAll(ctx, w, c, objects, dryRun); err != nil || dryRun {
			return err
		}
		if err := waitServed(ctx, c, cfg); err != nil || f.noDaemon || timeout == 0 {
			return err
		}
		return waitRunning(ctx, w, c, timeout)
	}
	return cmd
}

// installation renders the embedded manifests.
func installation(ctx context.Context, f installFlags) ([]*unstructured.Unstructured, error) {
	dir, err := os.MkdirTemp("", "nexus-install-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, manifests.Files); err != nil {
		return nil, err
	}
	overlay := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../base]\ncomponents:\n"
	for _, c := range f.components {
		if strings.ContainsAny(c, "/.") {
			return nil, fmt.Errorf("unknown component %q; there are servicemonitor and high-availability", c)
		}
		if _, err := manifests.Files.ReadDir(path.Join("components", c)); err != nil {
			return nil, fmt.Errorf("unknown component %q; there are servicemonitor and high-availability", c)
		}
		overlay += "  - ../components/" + c + "\n"
	}
	if err := os.Mkdir(path.Join(dir, "install"), 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(path.Join(dir, "install", "kustomization.yaml"), []byte(overlay), 0o600); err != nil {
		return nil, err
	}
	tree, err := render.DirTree(dir)
	if err != nil {
		return nil, err
	}
	res, err := (&render.Renderer{Limits: render.DefaultLimits(), Parallel: 1}).Render(ctx, render.Request{Tree: tree, Path: "install"})
	if err != nil {
		return nil, err
	}
	image := f.image
	if image == "" {
		image = "nexus-platform/reconciler:" + version
	}
	var out []*unstructured.Unstructured
	for _, obj := range res.Set.Objects {
		u := obj.Body.DeepCopy()
		if f.noDaemon && (u.GetKind() == "Deployment" || u.GetKind() == "NetworkPolicy") {
			continue
		}
		if u.GetKind() == "Deployment" {
			if err := setImage(u, image); err != nil {
				return nil, err
			}
		}
		out = append(out, u)
	}
	return out, nil
}

func setImage(u *unstructured.Unstructured, image string) error {
	containers, _, err := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
	if err != nil || len(containers) == 0 {
		return errors.New("the Deployment has no container")
	}
	containers[0].(map[string]any)["image"] = image
	return unstructured.SetNestedSlice(u.Object, containers, "spec", "template", "spec", "containers")
}

func exportAll(w io.Writer, objects []*unstructured.Unstructured) error {
	for _, u := range objects {
		b, err := yaml.Marshal(u.Object)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "---\n%s", b)
	}
	return nil
}

// applyAll applies the manifests by server-side apply.
func applyAll(ctx context.Context, w io.Writer, c client.Client, objects []*unstructured.Unstructured, dryRun bool) error {
	p := painter(w)
	fresh := map[string]bool{} // namespaces that a dry-run does not make
	for _, u := range objects {
		opts := []client.ApplyOption{client.FieldOwner("nexus-install"), client.ForceOwnership}
		if dryRun {
			opts = append(opts, client.DryRunAll)
		}
		err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), opts...)
		switch {
		case dryRun && apierrors.IsNotFound(err) && fresh[u.GetNamespace()]:
			fmt.Fprintf(w, "%s %s (its namespace comes with the install)\n", p.yellow("?"), object.RefOf(u))
			continue
		case err != nil:
			return fmt.Errorf("apply %s: %w", object.RefOf(u), err)
		}
		if u.GetKind() == "Namespace" {
			fresh[u.GetName()] = true
		}
		fmt.Fprintf(w, "%s %s\n", p.green("✓"), object.RefOf(u))
	}
	return nil
}

// waitServed returns when Environments can be listed, and are known to whoever asks what there is: kubectl
// would else say that there is no such kind for a moment after the install.
func waitServed(ctx context.Context, c client.Client, cfg *rest.Config) error {
	ask, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var list v1alpha1.EnvironmentList
		err := c.List(ctx, &list, client.Limit(1))
		if err == nil {
			var known map[schema.GroupVersion]*metav1.APIResourceList
			_, known, _, err = ask.GroupsAndMaybeResourcesWithContext(ctx)
			if err == nil && (known == nil || known[v1alpha1.GroupVersion] != nil) { // nil: a server that tells of each group alone
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API server does not serve Environments yet: %w", err)
		case <-tick.C:
		}
	}
}

// waitRunning returns when the daemon does. The error says what holds its pods.
func waitRunning(ctx context.Context, w io.Writer, c client.Client, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	fmt.Fprintln(w, "waiting for the daemon")
	daemonKey := client.ObjectKey{Namespace: "nexus-system", Name: "nexus-reconciler"}
	for {
		var d appsv1.Deployment
		err := c.Get(ctx, daemonKey, &d)
		s := d.Status
		if err == nil && s.ObservedGeneration == d.Generation && s.UpdatedReplicas == *d.Spec.Replicas && s.AvailableReplicas == *d.Spec.Replicas && s.Replicas == *d.Spec.Replicas {
			fmt.Fprintf(w, "%s the daemon runs\n", painter(w).green("✓"))
			return nil
		}
		select {
		case <-ctx.Done():
			why := ""
			for _, cond := range s.Conditions {
				if cond.Status != corev1.ConditionTrue || cond.Type == appsv1.DeploymentReplicaFailure {
					why = ": " + cond.Message
				}
			}
			return fmt.Errorf("installed, but the daemon does not run after %s%s; see kubectl -n %s describe pods", limit, why, daemonKey.Namespace)
		case <-tick.C:
		}
	}
}

func newUninstall(o *options) *cobra.Command {
	var dryRun, force bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the daemon, its rights and its CRDs away; what it deployed stays",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be deleted, and delete nothing")
	cmd.Flags().BoolVar(&force, "force", false, "even while Environments exist; they are deleted, their objects stay")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, w := cmd.Context(), cmd.OutOrStdout()
		objects, err := installation(ctx, installFlags{})
		if err != nil {
			return err
		}
		c, _, _, err := o.cluster()
		if err != nil {
			return err
		}
		if err := dismissEnvironments(ctx, w, c, force, dryRun); err != nil {
			return err
		}
		slices.Reverse(objects)
		for _, u := range objects {
			if dryRun {
				fmt.Fprintf(w, "would delete %s\n", object.RefOf(u))
				continue
			}
			err := c.Delete(ctx, u)
			if client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("delete %s: %w", object.RefOf(u), err)
			}
			fmt.Fprintf(w, "deleted %s\n", object.RefOf(u))
		}
		return nil
	}
	return cmd
}

// dismissEnvironments takes the finalizers off first, so that nothing hangs once the daemon is gone.
func dismissEnvironments(ctx context.Context, w io.Writer, c client.Client, force, dryRun bool) error {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: v1alpha1.GroupVersion.Group, Version: v1alpha1.GroupVersion.Version, Kind: "EnvironmentList"})
	if err := c.List(ctx, list); err != nil {
		if apierrors.IsNotFound(err) || strings.Contains(err.Error(), "no matches for kind") {
			return nil
		}
		return err
	}
	if len(list.Items) > 0 && !force {
		return fmt.Errorf("%d Environments exist, the first: %s/%s; delete them, or repeat with --force (what they deployed stays)", len(list.Items), list.Items[0].GetNamespace(), list.Items[0].GetName())
	}
	for i := range list.Items {
		u := &list.Items[i]
		if dryRun {
			fmt.Fprintf(w, "would release %s\n", object.RefOf(u))
			continue
		}
		before := u.DeepCopy()
		u.SetFinalizers(nil)
		if err := c.Patch(ctx, u, client.MergeFrom(before)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("release %s: %w", object.RefOf(u), err)
		}
	}
	return nil
}
