package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/nexus-platform/reconciler/e2e/cluster"
	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// client talks to the cluster as its administrator.
func client(t *testing.T, c *cluster.Cluster) *kubernetes.Clientset {
	t.Helper()
	cfg, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	return kubernetes.NewForConfigOrDie(cfg)
}

// eventually waits until check returns nil.
func eventually(t *testing.T, check func(ctx context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%v: %v", err, last)
	}
}

func deployment(name, image string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}},
			},
		},
	}
}

func TestAClusterKeepsDataAndAddressOverAStopAndACrash(t *testing.T) {
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: t.TempDir() + "/state", Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	deployments := client(t, c).AppsV1().Deployments("default")
	if _, err := deployments.Create(t.Context(), deployment("web", "web:1", 3), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	available := func(ctx context.Context) error {
		d, err := deployments.Get(ctx, "web", metav1.GetOptions{})
		if err == nil && d.Status.AvailableReplicas != 3 {
			err = fmt.Errorf("%d of 3 replicas available", d.Status.AvailableReplicas)
		}
		return err
	}
	eventually(t, available)

	for name, end := range map[string]func() error{"halt": c.Halt, "kill": c.Kill} {
		address := c.Address
		if err := end(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := available(t.Context()); err == nil || apierrors.ReasonForError(err) != metav1.StatusReasonUnknown {
			t.Fatalf("after %s the API server still answers: %v", name, err)
		}
		if _, err := os.Stat(c.Kubeconfig); err != nil {
			t.Errorf("after %s the kubeconfig is gone: %v", name, err)
		}
		if err := c.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c.Address != address {
			t.Errorf("after %s the address is %s, was %s", name, c.Address, address)
		}
		if err := available(t.Context()); err != nil { // the client from before
			t.Errorf("after %s and restart: %v", name, err)
		}
	}
	if err := c.Restart(t.Context()); err == nil {
		t.Error("a running cluster was started a second time")
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.Dir); err != nil {
		t.Errorf("Stop removed a directory that was given: %v", err)
	}
}

func TestAUserHasTheGroupsAskedForAndNoOtherRights(t *testing.T) {
	c := clustertest.Shared(t)
	ns := clustertest.Namespace(t)
	kubeconfig, err := c.User("jane", "call, on", "developers")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	jane := kubernetes.NewForConfigOrDie(cfg)
	review, err := jane.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(review.Status.UserInfo.Username, review.Status.UserInfo.Groups), "jane[call, on developers system:authenticated]"; got != want {
		t.Errorf("the API server sees %s, want %s", got, want)
	}
	if _, err := jane.CoreV1().ConfigMaps(ns).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("jane lists ConfigMaps without a role: %v", err)
	}
}

func TestAnAttachedClusterIsLeftAlone(t *testing.T) {
	c, err := cluster.Attach(clustertest.Shared(t).Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func() error{
		"halt": c.Halt, "kill": c.Kill, "restart": func() error { return c.Restart(t.Context()) },
	} {
		if err := end(); !errors.Is(err, cluster.ErrForeign) {
			t.Errorf("%s: %v, want ErrForeign", name, err)
		}
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := client(t, c).Discovery().ServerVersion(); err != nil {
		t.Errorf("after Stop of an attached cluster: %v", err)
	}
}
