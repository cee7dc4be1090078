package kinds_test

import (
	"os"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nexus-platform/reconciler/validate/kinds"
)

// The file is what `kubectl api-resources` said of a Kubernetes 1.37 with every default.
func TestTheTableAgreesWithAServer(t *testing.T) {
	b, err := os.ReadFile("testdata/served-by-1.37")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		f := strings.Fields(line)
		gvk := schema.FromAPIVersionAndKind(f[1], f[2])
		if kinds.ClusterWide(gvk.GroupKind()) != (f[0] == "cluster") {
			t.Errorf("%s: cluster-wide is %v, but the server says %s", gvk, kinds.ClusterWide(gvk.GroupKind()), f[0])
		}
		if !kinds.BuiltIn(gvk) {
			t.Errorf("%s is served, and not known to be built in", gvk)
		}
		if l, ok := kinds.LifeOf(gvk); ok && l.Removed > 0 && l.Removed <= 37 {
			t.Errorf("%s is served by 1.37, and said to be gone since 1.%d", gvk, l.Removed)
		}
	}
}

func TestForeignKindsAreNotBuiltIn(t *testing.T) {
	for _, gvk := range []schema.GroupVersionKind{
		{Group: "example.com", Version: "v1", Kind: "Deployment"},
		{Group: "apps", Version: "v1", Kind: "Deploymnet"},
		{Group: "apps", Version: "v3", Kind: "Deployment"},
		{},
	} {
		if kinds.BuiltIn(gvk) {
			t.Errorf("%v is said to be built in", gvk)
		}
	}
}

func TestAPIVersionsSayWhatReplacesThem(t *testing.T) {
	for _, c := range []struct {
		gvk     schema.GroupVersionKind
		removed uint
		instead string
	}{
		{schema.GroupVersionKind{Group: "extensions", Version: "v1beta1", Kind: "Ingress"}, 22, "networking.k8s.io/v1"},
		{schema.GroupVersionKind{Group: "policy", Version: "v1beta1", Kind: "PodSecurityPolicy"}, 25, "the pod-security.kubernetes.io labels of Namespaces"},
		{schema.GroupVersionKind{Group: "autoscaling", Version: "v2beta1", Kind: "HorizontalPodAutoscaler"}, 25, "autoscaling/v2"},
		{schema.GroupVersionKind{Version: "v1", Kind: "Endpoints"}, 0, "EndpointSlice in discovery.k8s.io/v1"},
	} {
		l, ok := kinds.LifeOf(c.gvk)
		if !ok || l.Removed != c.removed || l.Instead != c.instead {
			t.Errorf("%s: got %+v, %v", c.gvk, l, ok)
		}
	}
	if l, ok := kinds.LifeOf(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}); ok {
		t.Errorf("a stable version ends: %+v", l)
	}
}
