package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/object"
)

func (s *stage) get(ctx context.Context, env string) (*v1alpha1.Environment, error) {
	e := &v1alpha1.Environment{}
	return e, s.client.Get(ctx, client.ObjectKey{Namespace: demoNamespace(env), Name: env}, e)
}

// outcome follows the newest release of an environment (of a commit, if one is given) and checks how it ended.
func (s *stage) outcome(ctx context.Context, env, commit string, want v1alpha1.Outcome, live bool) (*v1alpha1.Release, error) {
	var found *v1alpha1.Release
	view := progress{w: s.w, paint: s.paint}
	err := s.until(ctx, fmt.Sprintf("the release of %.10s in %s", commit, env), func() (bool, error) {
		e, err := s.get(ctx, env)
		if err != nil {
			return false, err
		}
		list, err := releases(ctx, s.client, e)
		if err != nil {
			return false, err
		}
		for i := range list {
			if commit == "" || list[i].Spec.Commit == commit {
				found = &list[i]
				break
			}
		}
		if found == nil {
			return false, nil
		}
		if live {
			view.show(found)
		}
		return found.Status.Outcome != "", nil
	})
	if err != nil {
		return nil, s.because(ctx, env, err)
	}
	if found.Status.Outcome != want {
		return nil, fmt.Errorf("%s ended as %s, not %s: %s", found.Name, found.Status.Outcome, want, found.Status.Message)
	}
	return found, nil
}

// because adds to an error what the environment itself says.
func (s *stage) because(ctx context.Context, env string, err error) error {
	if e, gerr := s.get(context.WithoutCancel(ctx), env); gerr == nil {
		if c := meta.FindStatusCondition(e.Status.Conditions, v1alpha1.ConditionReady); c != nil {
			return fmt.Errorf("%w; %s is %s: %s", err, env, c.Reason, c.Message)
		}
	}
	return err
}

// settled waits until the environment is idle on the tip of the branch, as Git describes it.
func (s *stage) settled(ctx context.Context, env string) error {
	return s.until(ctx, env+" to be ready", func() (bool, error) {
		e, err := s.get(ctx, env)
		if err != nil {
			return false, err
		}
		return e.Status.State == v1alpha1.StateIdle && meta.IsStatusConditionTrue(e.Status.Conditions, v1alpha1.ConditionReady), nil
	})
}

func (s *stage) backendImage(ctx context.Context, env string) (string, error) {
	d := &appsv1.Deployment{}
	err := s.client.Get(ctx, client.ObjectKey{Namespace: demoNamespace(env), Name: "backend"}, d)
	if err != nil {
		return "", err
	}
	return d.Spec.Template.Spec.Containers[0].Image, nil
}

// serving waits until every Deployment of the environment is complete and available.
func (s *stage) serving(ctx context.Context, env string) error {
	return s.until(ctx, "everything in "+env+" to serve", func() (bool, error) {
		var list appsv1.DeploymentList
		if err := s.client.List(ctx, &list, client.InNamespace(demoNamespace(env))); err != nil {
			return false, err
		}
		for _, d := range list.Items {
			if d.Status.ObservedGeneration < d.Generation || d.Status.AvailableReplicas != *d.Spec.Replicas || d.Status.UpdatedReplicas != *d.Spec.Replicas {
				return false, nil
			}
		}
		return len(list.Items) > 0, nil
	})
}

// versions is every managed object of an environment with its generation: it changes with every write to what we own.
func (s *stage) versions(ctx context.Context, env string) (string, error) {
	e, err := s.get(ctx, env)
	if err != nil {
		return "", err
	}
	var lines []string
	for _, gvk := range []schema.GroupVersionKind{
		{Group: "apps", Version: "v1", Kind: "Deployment"}, {Group: "apps", Version: "v1", Kind: "StatefulSet"}, {Version: "v1", Kind: "Service"},
		{Version: "v1", Kind: "ConfigMap"}, {Version: "v1", Kind: "ServiceAccount"}, {Group: "networking.k8s.io", Version: "v1", Kind: "Ingress"},
		{Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy"},
	} {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		err := s.client.List(ctx, list, client.InNamespace(e.Namespace), client.MatchingLabels{object.EnvironmentLabel: string(e.UID)})
		if err != nil {
			return "", err
		}
		for _, u := range list.Items {
			lines = append(lines, fmt.Sprintf("%s generation %d uid %s", object.RefOf(&u), u.GetGeneration(), u.GetUID()))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}
