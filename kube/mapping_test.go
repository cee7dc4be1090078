package kube

import (
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestTheVersionOfAKindIsTheMostMatureThatIsServed(t *testing.T) {
	c, requests := open(t, "versions", nil)
	ctx := deadline(t)
	for _, tt := range []struct{ group, kind, want string }{
		{"", "ConfigMap", "v1"},
		{"autoscaling", "HorizontalPodAutoscaler", "v2"},
		{"apps", "Deployment", "v1"},
	} {
		got, err := c.Version(ctx, schema.GroupKind{Group: tt.group, Kind: tt.kind})
		if err != nil || got != tt.want {
			t.Errorf("%s: %q, %v; want %s", tt.kind, got, err, tt.want)
		}
	}
	asked := len(requests.take())
	if _, err := c.Version(ctx, schema.GroupKind{Group: "apps", Kind: "Deployment"}); err != nil || len(requests.take()) != 0 {
		t.Errorf("a kind that is known was asked for again: %v (%d requests before)", err, asked)
	}
	var unknown *NoKindError
	if v, err := c.Version(ctx, schema.GroupKind{Group: "example.com", Kind: "Nothing"}); !errors.As(err, &unknown) {
		t.Errorf("a kind that is not served: %q, %v", v, err)
	}
}

func TestTheVersionOfTheServerIsAskedForOnce(t *testing.T) {
	c, requests := open(t, "server-version", nil)
	ctx := deadline(t)
	v, err := c.ServerVersion(ctx)
	if err != nil || v.Major() != 1 || v.Minor() < 31 {
		t.Fatalf("%v, %v", v, err)
	}
	if _, err := c.ServerVersion(ctx); err != nil {
		t.Fatal(err)
	}
	if got := requests.take(); len(got) != 1 || !strings.HasPrefix(got[0], "GET /version") {
		t.Errorf("requests: %q", got)
	}
}
