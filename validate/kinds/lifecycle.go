package kinds

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// NewestServer is the Kubernetes version of the types that this program was built with.
const NewestServer = "1.37"

// The marks that Kubernetes generates for API versions that come and go.
type (
	removedAPI     interface{ APILifecycleRemoved() (int, int) }
	deprecatedAPI  interface{ APILifecycleDeprecated() (int, int) }
	replaceableAPI interface {
		APILifecycleReplacement() schema.GroupVersionKind
	}
)

// Life says from which minor version of Kubernetes on an API version is deprecated and gone; 0: never.
type Life struct {
	Deprecated, Removed uint
	Instead             string // what to use
}

// goneAPIs are those that even the types have forgotten, or that carry no marks.
var goneAPIs = map[schema.GroupVersionKind]Life{
	{Group: "policy", Version: "v1beta1", Kind: "PodSecurityPolicy"}:                      {21, 25, "the pod-security.kubernetes.io labels of Namespaces"},
	{Group: "extensions", Version: "v1beta1", Kind: "PodSecurityPolicy"}:                  {11, 16, "the pod-security.kubernetes.io labels of Namespaces"},
	{Group: "settings.k8s.io", Version: "v1alpha1", Kind: "PodPreset"}:                    {19, 20, "a mutating admission policy"},
	{Group: "autoscaling", Version: "v2beta1", Kind: "HorizontalPodAutoscaler"}:           {22, 25, "autoscaling/v2"},
	{Group: "autoscaling", Version: "v2beta2", Kind: "HorizontalPodAutoscaler"}:           {23, 26, "autoscaling/v2"},
	{Group: "batch", Version: "v2alpha1", Kind: "CronJob"}:                                {8, 21, "batch/v1"},
	{Group: "apiextensions.k8s.io", Version: "v1beta1", Kind: "CustomResourceDefinition"}: {16, 22, "apiextensions.k8s.io/v1"},
	{Group: "apiregistration.k8s.io", Version: "v1beta1", Kind: "APIService"}:             {19, 22, "apiregistration.k8s.io/v1"},
	{Group: "scheduling.k8s.io", Version: "v1alpha1", Kind: "PriorityClass"}:              {14, 17, "scheduling.k8s.io/v1"},
	{Group: "rbac.authorization.k8s.io", Version: "v1alpha1", Kind: "Role"}:               {17, 23, "rbac.authorization.k8s.io/v1"},
	{Group: "rbac.authorization.k8s.io", Version: "v1alpha1", Kind: "RoleBinding"}:        {17, 23, "rbac.authorization.k8s.io/v1"},
	{Group: "rbac.authorization.k8s.io", Version: "v1alpha1", Kind: "ClusterRole"}:        {17, 23, "rbac.authorization.k8s.io/v1"},
	{Group: "rbac.authorization.k8s.io", Version: "v1alpha1", Kind: "ClusterRoleBinding"}: {17, 23, "rbac.authorization.k8s.io/v1"},
	{Group: "node.k8s.io", Version: "v1alpha1", Kind: "RuntimeClass"}:                     {20, 24, "node.k8s.io/v1"},
	{Group: "discovery.k8s.io", Version: "v1alpha1", Kind: "EndpointSlice"}:               {17, 21, "discovery.k8s.io/v1"},
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1alpha1", Kind: "FlowSchema"}:      {20, 24, "flowcontrol.apiserver.k8s.io/v1"},
	{Group: "storage.k8s.io", Version: "v1alpha1", Kind: "CSIStorageCapacity"}:            {21, 24, "storage.k8s.io/v1"},
	{Group: "networking.k8s.io", Version: "v1alpha1", Kind: "ClusterCIDR"}:                {29, 29, "no other kind: it was taken back"},
	{Group: "resource.k8s.io", Version: "v1alpha2", Kind: "ResourceClaim"}:                {31, 31, "resource.k8s.io/v1"},
	{Group: "resource.k8s.io", Version: "v1alpha2", Kind: "ResourceClaimTemplate"}:        {31, 31, "resource.k8s.io/v1"},
	{Version: "v1", Kind: "Endpoints"}:                                                    {33, 0, "EndpointSlice in discovery.k8s.io/v1"},
	{Version: "v1", Kind: "ComponentStatus"}:                                              {19, 0, "the health endpoints of the control plane"},
}

// LifeOf says how long an API version lives; false: for ever.
func LifeOf(gvk schema.GroupVersionKind) (Life, bool) {
	if l, ok := goneAPIs[gvk]; ok {
		return l, true
	}
	typed, err := scheme.Scheme.New(gvk)
	if err != nil {
		return Life{}, false
	}
	var l Life
	if d, ok := typed.(deprecatedAPI); ok {
		_, minor := d.APILifecycleDeprecated()
		l.Deprecated = uint(minor)
	}
	if d, ok := typed.(removedAPI); ok {
		_, minor := d.APILifecycleRemoved()
		l.Removed = uint(minor)
	}
	if d, ok := typed.(replaceableAPI); ok {
		with := d.APILifecycleReplacement()
		l.Instead = with.GroupVersion().String()
		if with.Kind != gvk.Kind {
			l.Instead = with.Kind + " in " + l.Instead
		}
	}
	return l, l.Deprecated > 0 || l.Removed > 0
}
