package faults

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/object"
)

// The baseline is what many teams run today: a loop that applies what the branch describes in order, waits for its workloads, then
// prunes, and tries again what failed. It has no journal and takes nothing back.

const (
	baselineVerb  = "baseline"
	baselineLabel = "example.com/baseline"
)

// baselineMain is the loop: arguments are a kubeconfig, a bare repository and a namespace. It ends when it is killed.
func baselineMain(kubeconfig, repository, namespace string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	loop := &baseline{client: client, repository: repository, namespace: namespace}
	for done := ""; ; <-time.After(300 * time.Millisecond) {
		tip, err := exec.Command("git", "-C", repository, "rev-parse", "main").Output()
		if err != nil || string(tip) == done {
			continue // there is no branch yet, or nothing new
		}
		if err := loop.sync(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			<-time.After(2 * time.Second)
			continue
		}
		done = string(tip)
	}
}

type baseline struct {
	client                *dynamic.DynamicClient
	repository, namespace string
}

// sync makes one commit true, as far as it goes.
func (b *baseline) sync(ctx context.Context) error {
	set, err := b.read()
	if err != nil {
		return err
	}
	for _, o := range set.Objects {
		if err := b.apply(ctx, o.Body); err != nil {
			return fmt.Errorf("apply %s: %w", o.Ref, err)
		}
	}
	for limit := time.Now().Add(5 * time.Second); ; <-time.After(100 * time.Millisecond) {
		waits, err := b.waits(ctx, set)
		if err == nil && waits == "" {
			break
		}
		if time.Now().After(limit) {
			return fmt.Errorf("%s does not become ready: %w", waits, err)
		}
	}
	return b.prune(ctx, set)
}

// read gives the objects of the tip in apply order.
func (b *baseline) read() (*object.Set, error) {
	archive, err := exec.Command("git", "-C", b.repository, "archive", "--format=tar", "main", folder).Output()
	if err != nil {
		return nil, err
	}
	var objects []object.Object
	for files := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return object.NewSet(objects)
		}
		if err != nil {
			return nil, err
		}
		if header.Typeflag != tar.TypeReg || slices.Contains([]string{"kustomization.yaml", "release.yaml"}, path.Base(header.Name)) {
			continue
		}
		text, err := io.ReadAll(files)
		if err != nil {
			return nil, err
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(text, &u.Object); err != nil {
			return nil, err
		}
		if u.GetKind() != "CustomResourceDefinition" {
			u.SetNamespace(b.namespace)
		}
		u.SetLabels(map[string]string{baselineLabel: "true"})
		o, err := object.NewObject(u, object.Origin{Path: header.Name})
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
}

func (b *baseline) of(u *unstructured.Unstructured) dynamic.ResourceInterface {
	gvk := u.GroupVersionKind()
	resource := b.client.Resource(schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: strings.ToLower(gvk.Kind) + "s"})
	if u.GetNamespace() == "" {
		return resource
	}
	return resource.Namespace(u.GetNamespace())
}

// apply forces an object to what it should be; one with a changed immutable field is made anew.
func (b *baseline) apply(ctx context.Context, u *unstructured.Unstructured) error {
	_, err := b.of(u).Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: "baseline", Force: true})
	if !apierrors.IsInvalid(err) {
		return err
	}
	if err := b.of(u).Delete(ctx, u.GetName(), metav1.DeleteOptions{}); err != nil {
		return err
	}
	_, err = b.of(u).Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: "baseline", Force: true})
	return err
}

// waits names a workload that is not what it was asked to be, or is empty.
func (b *baseline) waits(ctx context.Context, set *object.Set) (string, error) {
	for _, o := range set.Objects {
		if o.Ref.Kind != "Deployment" && o.Ref.Kind != "StatefulSet" {
			continue
		}
		u, err := b.of(o.Body).Get(ctx, o.Ref.Name, metav1.GetOptions{})
		if err != nil {
			return o.Ref.String(), err
		}
		seen, _, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration")
		updated, _, _ := unstructured.NestedInt64(u.Object, "status", "updatedReplicas")
		ready, _, _ := unstructured.NestedInt64(u.Object, "status", "readyReplicas")
		all, _, _ := unstructured.NestedInt64(u.Object, "status", "replicas")
		if seen < u.GetGeneration() || updated < 1 || ready < 1 || all > updated {
			return o.Ref.String(), nil
		}
	}
	return "", nil
}

// prune deletes what the commit does not have any more.
func (b *baseline) prune(ctx context.Context, set *object.Set) error {
	for _, resource := range kinds {
		list, err := b.client.Resource(resource).Namespace(b.namespace).List(ctx, metav1.ListOptions{LabelSelector: baselineLabel})
		if err != nil {
			return err
		}
		for i := range list.Items {
			u := &list.Items[i]
			if _, stays := set.Get(object.RefOf(u)); stays || len(u.GetOwnerReferences()) > 0 {
				continue
			}
			if err := b.of(u).Delete(ctx, u.GetName(), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
	}
	return nil
}
