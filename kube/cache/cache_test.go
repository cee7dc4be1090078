package cache

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nexus-platform/reconciler/object"
)

var (
	ref   = object.Ref{Kind: "ConfigMap", Namespace: "shop", Name: "a"}
	watch = Scope{Kind: schema.GroupKind{Kind: "ConfigMap"}, Namespace: "shop"}
)

func state(uid, resourceVersion string, labelled bool) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}}
	u.SetNamespace(ref.Namespace)
	u.SetName(ref.Name)
	u.SetUID(types.UID(uid))
	u.SetResourceVersion(resourceVersion)
	if labelled {
		u.SetLabels(map[string]string{object.EnvironmentLabel: "env"})
	}
	return u
}

// TestStories tells the cache what happened, in words, and looks at what it holds then: uid@resourceVersion, "-" for
// nothing, with " unlabelled" where our label was taken off.
//
//	put U@R       the watch shows the object         wrote U@R   a write of ours was answered
//	gone @R       it left the watch                  going @R    the same, with a deletion timestamp
//	ours U        we delete it                       reach @R    a bookmark
//	ask nothing   a read finds nothing               ask U@R     a read finds it, unlabelled      askours U@R   labelled
func TestStories(t *testing.T) {
	for _, tc := range []struct{ name, story, want string }{
		{"an object appears", "put u@5", "u@5"},
		{"a write is known before the watch tells", "reach @4, wrote u@5", "u@5"},
		{"the watch's echo of a write changes nothing", "reach @4, wrote u@5, put u@5", "u@5"},
		{"what the watch tells late does not take a write back", "reach @4, wrote u@7, put u@6", "u@7"},
		{"a write before the first list is not kept", "wrote u@5", "-"},
		{"a write that was answered after the watch told of the deletion does not bring the object back", "put u@5, going @6, wrote u@5", "-"},
		{"whoever deletes is asked for", "put u@5, gone @6", "u@5"},
		{"deleted by somebody", "put u@5, gone @6, ask nothing", "-"},
		{"deleted with a finalizer needs no question", "put u@5, going @6", "-"},
		{"deleted by us needs no question", "put u@5, ours u, gone @6", "-"},
		{"our deletion does not excuse another object", "put u@5, ours x, gone @6", "u@5"},
		{"the label was taken off", "put u@5, gone @6, ask u@6", "- unlabelled"},
		{"and put back", "put u@5, gone @6, ask u@6, put u@7", "u@7"},
		{"made again by somebody without our label", "put u@5, gone @6, ask x@7", "-"},
		{"it came back before it was asked for", "put u@5, gone @6, put x@7, ask nothing", "x@7"},
		{"the label came back before it was asked for", "put u@5, gone @6, askours u@7", "u@7"},
		{"a deletion older than our write is an old tale", "put u@5, wrote x@9, gone @6", "x@9"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := New("env")
			var doubtful *Live
			for _, s := range strings.Split(tc.story, ", ") {
				verb, what, _ := strings.Cut(s, " ")
				uid, rv, _ := strings.Cut(what, "@")
				switch verb {
				case "put":
					l, err := NewLive(state(uid, rv, true))
					if err != nil {
						t.Fatal(err)
					}
					c.Put(watch, l)
				case "wrote":
					c.Wrote(state(uid, rv, true))
				case "reach":
					c.Reach(watch, rv)
				case "ours":
					c.Expect(ref, types.UID(uid))
				case "gone", "going":
					doubtful, _ = c.Vanish(watch, ref, rv, verb == "going")
				case "ask", "askours":
					var found *unstructured.Unstructured
					if what != "nothing" {
						found = state(uid, rv, verb == "askours")
					}
					if doubtful == nil {
						t.Fatal("nothing was in doubt")
					}
					c.Settle(doubtful, found)
				default:
					t.Fatalf("no such verb: %s", verb)
				}
			}
			got := "-"
			if l, ok := c.Live(ref); ok {
				got = string(l.UID) + "@" + l.ResourceVersion
			}
			if c.Unlabelled(ref) {
				got += " unlabelled"
			}
			if got != tc.want {
				t.Errorf("the cache holds %q, not %q", got, tc.want)
			}
		})
	}
}
