package render

import (
	"testing"

	"github.com/nexus-platform/reconciler/object"
)

func TestRendersAnOverlayInAProcessOfItsOwn(t *testing.T) {
	tree, err := DirTree("../examples/nexus-platform")
	if err != nil {
		t.Fatal(err)
	}
	r := &Renderer{}
	got, err := r.Render(t.Context(), Request{Tree: tree, Path: "overlays/production"})
	if err != nil {
		t.Fatal(err)
	}
	ingress, ok := got.Set.Get(object.Ref{Group: "networking.k8s.io", Kind: "Ingress", Namespace: "platform-production", Name: "platform"})
	if !ok || ingress.Origin.String() != "base/networking/ingress.yaml:1" {
		t.Errorf("the ingress: found %v, from %v", ok, ingress.Origin)
	}
	if len(got.Policy) == 0 || got.PolicyPath != "overlays/production/release.yaml" {
		t.Errorf("policy: %d bytes at %s", len(got.Policy), got.PolicyPath)
	}
	again, err := r.Render(t.Context(), Request{Tree: tree, Path: "overlays/production"})
	if err != nil || !again.Cached || again.Set != got.Set {
		t.Errorf("the second render was not taken from the cache: %v", err)
	}
}
