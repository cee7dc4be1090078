package kubelet

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (k *Kubelet) nodes() map[string]string {
	nodes := map[string]string{}
	for i := range k.Nodes {
		nodes[fmt.Sprintf("node-%d", i)] = fmt.Sprintf("10.0.0.%d", 10+i)
	}
	return nodes
}

// Register makes the nodes, ready, with their leases, and the default storage class. Doing it again does no harm.
func (k *Kubelet) Register(ctx context.Context) error {
	for name, ip := range k.nodes() {
		if err := k.register(ctx, name, ip); err != nil {
			return fmt.Errorf("register node %s: %w", name, err)
		}
	}
	if err := k.renew(ctx); err != nil {
		return err
	}
	reclaim := corev1.PersistentVolumeReclaimDelete
	_, err := k.Client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:        storageClass,
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner:   provisioner,
		ReclaimPolicy: &reclaim,
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make storage class %s: %w", storageClass, err)
	}
	return nil
}

func (k *Kubelet) register(ctx context.Context, name, ip string) error {
	nodes := k.Client.CoreV1().Nodes()
	node, err := nodes.Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname:             name,
			corev1.LabelOSStable:             "linux",
			corev1.LabelArchStable:           "amd64",
			"node-role.kubernetes.io/worker": "",
		}},
		Spec: corev1.NodeSpec{ProviderID: "devcluster://" + name},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		node, err = nodes.Get(ctx, name, metav1.GetOptions{})
	}
	if err != nil {
		return err
	}
	node.Status = k.status(name, ip)
	_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

func (k *Kubelet) status(name, ip string) corev1.NodeStatus {
	size := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("64"),
		corev1.ResourceMemory:           resource.MustParse("256Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
		corev1.ResourcePods:             resource.MustParse("1000"),
	}
	st := corev1.NodeStatus{
		Capacity: size, Allocatable: size,
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}, {Type: corev1.NodeHostName, Address: name}},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion: k.Version, OperatingSystem: "linux", Architecture: "amd64",
			OSImage: "simulated", ContainerRuntimeVersion: "sim://0", KernelVersion: "simulated",
		},
	}
	now := metav1.Now()
	for _, c := range []corev1.NodeCondition{
		{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientMemory"},
		{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasNoDiskPressure"},
		{Type: corev1.NodePIDPressure, Status: corev1.ConditionFalse, Reason: "KubeletHasSufficientPID"},
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"},
	} {
		c.LastHeartbeatTime, c.LastTransitionTime = now, now
		st.Conditions = append(st.Conditions, c)
	}
	return st
}

// renew tells the node controller that the nodes are alive.
func (k *Kubelet) renew(ctx context.Context) error {
	leases, seconds := k.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease), int32(40)
	for name := range k.nodes() {
		now := metav1.NowMicro()
		lease, err := leases.Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			_, err = leases.Create(ctx, &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: corev1.NamespaceNodeLease},
				Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now},
			}, metav1.CreateOptions{})
		case err == nil:
			lease.Spec.RenewTime = &now
			_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
		}
		if err != nil {
			return fmt.Errorf("renew lease of %s: %w", name, err)
		}
	}
	return nil
}
