// Package kinds knows the kinds that Kubernetes itself serves: whether they are in namespaces, and how long their API versions live.
package kinds

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// CRD is the kind that brings others.
var CRD = schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}

// BuiltIn reports that the API server itself serves the kind, now or formerly.
func BuiltIn(gvk schema.GroupVersionKind) bool {
	if gvk.Group == "apiregistration.k8s.io" || gvk.Group == CRD.Group {
		return true
	}
	_, gone := goneAPIs[gvk]
	return gone || scheme.Scheme.Recognizes(gvk)
}

// clusterKinds are the built-in kinds that are in no namespace.
var clusterKinds = []string{
	"ComponentStatus", "Namespace", "Node", "PersistentVolume", "PodSecurityPolicy.policy", "PodSecurityPolicy.extensions",
	"APIService.apiregistration.k8s.io", "CustomResourceDefinition.apiextensions.k8s.io",
	"MutatingAdmissionPolicy.admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding.admissionregistration.k8s.io",
	"MutatingWebhookConfiguration.admissionregistration.k8s.io", "ValidatingAdmissionPolicy.admissionregistration.k8s.io",
	"ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io", "ValidatingWebhookConfiguration.admissionregistration.k8s.io",
	"SelfSubjectReview.authentication.k8s.io", "TokenReview.authentication.k8s.io",
	"SelfSubjectAccessReview.authorization.k8s.io", "SelfSubjectRulesReview.authorization.k8s.io", "SubjectAccessReview.authorization.k8s.io",
	"CertificateSigningRequest.certificates.k8s.io", "ClusterTrustBundle.certificates.k8s.io",
	"FlowSchema.flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration.flowcontrol.apiserver.k8s.io",
	"StorageVersion.internal.apiserver.k8s.io", "StorageVersionMigration.storagemigration.k8s.io",
	"IngressClass.networking.k8s.io", "IPAddress.networking.k8s.io", "ServiceCIDR.networking.k8s.io",
	"RuntimeClass.node.k8s.io", "ClusterRole.rbac.authorization.k8s.io", "ClusterRoleBinding.rbac.authorization.k8s.io",
	"DeviceClass.resource.k8s.io", "DeviceTaintRule.resource.k8s.io", "ResourceSlice.resource.k8s.io",
	"PriorityClass.scheduling.k8s.io",
	"CSIDriver.storage.k8s.io", "CSINode.storage.k8s.io", "StorageClass.storage.k8s.io",
	"VolumeAttachment.storage.k8s.io", "VolumeAttributesClass.storage.k8s.io",
}

// ClusterWide reports a built-in kind whose objects are in no namespace.
func ClusterWide(gk schema.GroupKind) bool { return slices.Contains(clusterKinds, gk.String()) }
