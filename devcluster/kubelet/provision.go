package kubelet

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nexus-platform/reconciler/devcluster/sim"
)

const (
	storageClass  = "standard"
	provisioner   = "devcluster/sim"
	provisionedBy = "pv.kubernetes.io/provisioned-by"
	serviceIP     = "198.51.100.1" // of the range for documentation: nobody is there
	ingressIP     = "198.51.100.2"
)

// held says whether an object asks to be left waiting.
func held(o metav1.Object) bool { return o.GetAnnotations()[sim.BehaviorAnnotation] == "pending" }

// claim makes a volume for an unbound claim of our class; the controller manager binds the two.
func (r *runner) claim(ctx context.Context, k key) error {
	pvc, err := r.claims.PersistentVolumeClaims(k.namespace).Get(k.name)
	if err != nil {
		return err
	}
	class := pvc.Spec.StorageClassName
	if pvc.Spec.VolumeName != "" || pvc.DeletionTimestamp != nil || class == nil || *class != storageClass || held(pvc) {
		return nil
	}
	_, err = r.Client.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pvc-" + string(pvc.UID), Annotations: map[string]string{provisionedBy: provisioner}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      pvc.Spec.Resources.Requests,
			AccessModes:                   pvc.Spec.AccessModes,
			VolumeMode:                    pvc.Spec.VolumeMode,
			StorageClassName:              storageClass,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: pvc.Namespace, Name: pvc.Name, UID: pvc.UID,
			},
			// Not CSI: the controller manager would wait for a driver to attach it.
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: "/simulated/" + string(pvc.UID)},
			},
		},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// volume removes a volume whose claim is gone, as the policy Delete says.
func (r *runner) volume(ctx context.Context, k key) error {
	pv, err := r.volumes.Get(k.name)
	if err != nil {
		return err
	}
	if pv.Annotations[provisionedBy] != provisioner || pv.Status.Phase != corev1.VolumeReleased ||
		pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || pv.DeletionTimestamp != nil {
		return nil
	}
	return r.Client.CoreV1().PersistentVolumes().Delete(ctx, pv.Name, metav1.DeleteOptions{
		Preconditions: metav1.NewUIDPreconditions(string(pv.UID))})
}

// service gives a load balancer service an address.
func (r *runner) service(ctx context.Context, k key) error {
	svc, err := r.services.Services(k.namespace).Get(k.name)
	if err != nil {
		return err
	}
	if svc.Spec.Type != corev1.ServiceTypeLoadBalancer || len(svc.Status.LoadBalancer.Ingress) > 0 ||
		svc.DeletionTimestamp != nil || held(svc) {
		return nil
	}
	svc = svc.DeepCopy()
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: serviceIP}}
	_, err = r.Client.CoreV1().Services(k.namespace).UpdateStatus(ctx, svc, metav1.UpdateOptions{})
	return err
}

// ingress gives an ingress an address, whatever its class.
func (r *runner) ingress(ctx context.Context, k key) error {
	ing, err := r.ingresses.Ingresses(k.namespace).Get(k.name)
	if err != nil {
		return err
	}
	if len(ing.Status.LoadBalancer.Ingress) > 0 || ing.DeletionTimestamp != nil || held(ing) {
		return nil
	}
	ing = ing.DeepCopy()
	ing.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: ingressIP}}
	_, err = r.Client.NetworkingV1().Ingresses(k.namespace).UpdateStatus(ctx, ing, metav1.UpdateOptions{})
	return err
}
