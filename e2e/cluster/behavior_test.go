package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
)

// onePod returns the only pod of a namespace.
func onePod(ctx context.Context, k *kubernetes.Clientset, ns string) (*corev1.Pod, error) {
	pods, err := k.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	if len(pods.Items) != 1 || len(pods.Items[0].Status.ContainerStatuses) != 1 {
		return nil, fmt.Errorf("%d pods, want one with one container's status", len(pods.Items))
	}
	return &pods.Items[0], nil
}

func TestACrashLoopIsSeenWithinSeconds(t *testing.T) {
	k, ns := client(t, clustertest.Shared(t)), clustertest.Namespace(t)
	d := deployment("web", "web:crashloop", 1)
	d.Spec.Template.Annotations = map[string]string{"devcluster/termination-message": "cannot reach the database"}
	if _, err := k.AppsV1().Deployments(ns).Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	begin, seen := time.Now(), map[string]bool{}
	eventually(t, func(ctx context.Context) error {
		pod, err := onePod(ctx, k, ns)
		if err != nil {
			return err
		}
		c := pod.Status.ContainerStatuses[0]
		switch {
		case c.State.Running != nil:
			seen["Running"] = true
		case c.State.Terminated != nil:
			seen["Terminated"] = true
		case c.State.Waiting != nil:
			seen[c.State.Waiting.Reason] = true
		}
		if c.Ready {
			t.Error("a container that crashes at once is ready")
		}
		last := c.LastTerminationState.Terminated
		if c.RestartCount <= 2 || last == nil || !seen["Running"] || !seen["Terminated"] || !seen["CrashLoopBackOff"] {
			return fmt.Errorf("%d restarts, last %v, seen %v", c.RestartCount, last, seen)
		}
		if last.ExitCode != 1 || last.Reason != "Error" || last.Message != "cannot reach the database" {
			t.Errorf("last state: %+v", last)
		}
		return nil
	})
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("three restarts took %s", took)
	}
}

func TestAMissingConfigMapHoldsAPodAndHealsIt(t *testing.T) {
	k, ns := client(t, clustertest.Shared(t)), clustertest.Namespace(t)
	d := deployment("web", "web:1", 1)
	settings := corev1.LocalObjectReference{Name: "settings"}
	d.Spec.Template.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: settings}}}
	if _, err := k.AppsV1().Deployments(ns).Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		pod, err := onePod(ctx, k, ns)
		if err != nil {
			return err
		}
		w := pod.Status.ContainerStatuses[0].State.Waiting
		if w == nil || w.Reason != "CreateContainerConfigError" || w.Message != `configmap "settings" not found` {
			return fmt.Errorf("waits for %+v", w)
		}
		return nil
	})
	_, err := k.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "settings"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, podReady(k, ns))
}

func podReady(k *kubernetes.Clientset, ns string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		pod, err := onePod(ctx, k, ns)
		if err != nil {
			return err
		}
		if c := pod.Status.ContainerStatuses[0]; !c.Ready {
			return fmt.Errorf("container is not ready: %+v", c.State)
		}
		return nil
	}
}

func TestAMissingSecretOfAVolumeIsToldByAnEvent(t *testing.T) {
	k, ns := client(t, clustertest.Shared(t)), clustertest.Namespace(t)
	d := deployment("web", "web:1", 1)
	d.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "login", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "login"}}}}
	if _, err := k.AppsV1().Deployments(ns).Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		events, err := k.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "reason=FailedMount"})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, `secret "login" not found`) {
				return nil
			}
		}
		return fmt.Errorf("%d events, none about the Secret", len(events.Items))
	})
	pod, err := onePod(t.Context(), k, ns)
	if err != nil {
		t.Fatal(err)
	}
	if w := pod.Status.ContainerStatuses[0].State.Waiting; w == nil || w.Reason != "ContainerCreating" {
		t.Errorf("the container is %+v", pod.Status.ContainerStatuses[0].State)
	}
	if _, err := k.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "login"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, podReady(k, ns))
}

// A Secret made just before its pod must not look missing: whoever watches for broken pods would be misled.
func TestWhatWasMadeJustBeforeAPodIsThere(t *testing.T) {
	k, ns := client(t, clustertest.Shared(t)), clustertest.Namespace(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch, err := k.CoreV1().Pods(ns).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	const n = 100
	for i := range n {
		name := fmt.Sprintf("p%d", i)
		if _, err := k.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: deployment("x", "x:1", 1).Spec.Template.Spec}
		pod.Spec.NodeName = "node-0" // no scheduler in between: as early as can be
		pod.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}
		if _, err := k.CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	ready := map[string]bool{}
	for len(ready) < n {
		event, ok := <-watch.ResultChan()
		if !ok {
			t.Fatalf("only %d of %d pods were ready within a minute", len(ready), n)
		}
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			t.Fatalf("watch: %v", apierrors.FromObject(event.Object))
		}
		for _, c := range pod.Status.ContainerStatuses {
			if w := c.State.Waiting; w != nil && w.Reason == "CreateContainerConfigError" {
				t.Fatalf("pod %s: %s", pod.Name, w.Message)
			}
			if c.Ready {
				ready[pod.Name] = true
			}
		}
	}
}

func TestAJobEndsAsItsPodDoes(t *testing.T) {
	k, ns := client(t, clustertest.Shared(t)), clustertest.Namespace(t)
	for image, want := range map[string]batchv1.JobConditionType{"work:1": batchv1.JobComplete, "work:fail": batchv1.JobFailed} {
		none := int32(0)
		name := strings.ReplaceAll(image, ":", "-")
		job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: batchv1.JobSpec{BackoffLimit: &none}}
		job.Spec.Template.Spec = deployment("x", image, 1).Spec.Template.Spec
		job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		if _, err := k.BatchV1().Jobs(ns).Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, func(ctx context.Context) error {
			job, err := k.BatchV1().Jobs(ns).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, c := range job.Status.Conditions {
				if c.Type == want && c.Status == corev1.ConditionTrue {
					return nil
				}
			}
			return fmt.Errorf("job %s is not %s: %+v", name, want, job.Status)
		})
	}
}

func TestAClaimGetsAVolumeThatGoesWithIt(t *testing.T) {
	k, ns := client(t, clustertest.Shared(t)), clustertest.Namespace(t)
	claims := k.CoreV1().PersistentVolumeClaims(ns)
	_, err := claims.Create(t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	volume := ""
	eventually(t, func(ctx context.Context) error {
		claim, err := claims.Get(ctx, "data", metav1.GetOptions{})
		if err == nil && claim.Status.Phase != corev1.ClaimBound {
			err = fmt.Errorf("claim is %s", claim.Status.Phase)
		}
		if err == nil {
			volume = claim.Spec.VolumeName
		}
		return err
	})
	if err := claims.Delete(t.Context(), "data", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		_, err := k.CoreV1().PersistentVolumes().Get(ctx, volume, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(fmt.Errorf("volume %s is still there", volume), err)
	})
}

func TestLoadBalancersAndIngressesGetAddresses(t *testing.T) {
	k, ns := client(t, clustertest.Shared(t)), clustertest.Namespace(t)
	meta := map[string]metav1.ObjectMeta{
		"open": {Name: "open"},
		"held": {Name: "held", Annotations: map[string]string{"devcluster/behavior": "pending"}},
	}
	for _, name := range []string{"held", "open"} {
		_, err := k.CoreV1().Services(ns).Create(t.Context(), &corev1.Service{
			ObjectMeta: meta[name],
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 80}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.NetworkingV1().Ingresses(ns).Create(t.Context(), &networkingv1.Ingress{
			ObjectMeta: meta[name],
			Spec: networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{
				Service: &networkingv1.IngressServiceBackend{Name: name, Port: networkingv1.ServiceBackendPort{Number: 80}}}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	addresses := func(ctx context.Context, name string) (int, error) {
		svc, err := k.CoreV1().Services(ns).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return 0, err
		}
		ing, err := k.NetworkingV1().Ingresses(ns).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return 0, err
		}
		return len(svc.Status.LoadBalancer.Ingress) + len(ing.Status.LoadBalancer.Ingress), nil
	}
	eventually(t, func(ctx context.Context) error {
		n, err := addresses(ctx, "open")
		if err == nil && n != 2 {
			err = fmt.Errorf("%d addresses, want 2", n)
		}
		return err
	})
	if n, err := addresses(t.Context(), "held"); n != 0 || err != nil {
		t.Errorf("what asked to be held has %d addresses (%v)", n, err)
	}
}
