package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nexus-platform/reconciler/object"
)

// world is the canonical state of a lane: what each object says, without what differs from one making of it to the next.
type world struct {
	objects map[string]string // by kind and name
	uids    map[string]string
	tick    string // of the ConfigMap that counts, which the objects leave out
	labeled []string
}

var kinds = []schema.GroupVersionResource{
	{Version: "v1", Resource: "configmaps"}, {Version: "v1", Resource: "secrets"}, {Version: "v1", Resource: "services"},
	{Group: "apps", Version: "v1", Resource: "deployments"}, {Group: "apps", Version: "v1", Resource: "statefulsets"},
	{Group: "batch", Version: "v1", Resource: "jobs"}, {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"},
}

// look reads the state of a lane past the proxy.
func (l *lane) look(ctx context.Context) (world, error) {
	w := world{objects: map[string]string{}, uids: map[string]string{}}
	resources := kinds
	if l.group != "" {
		resources = append(slices.Clone(kinds), schema.GroupVersionResource{Group: l.group, Version: "v1", Resource: "widgets"})
	}
	for _, resource := range resources {
		list, err := l.dynamic.Resource(resource).Namespace(l.ns).List(ctx, metav1.ListOptions{})
		if apierrors.IsNotFound(err) {
			continue // no such definition
		}
		if err != nil {
			return w, err
		}
		for i := range list.Items {
			w.add(&list.Items[i], l)
		}
	}
	if l.group != "" {
		crd, err := l.dynamic.Resource(crds).Get(ctx, "widgets."+l.group, metav1.GetOptions{})
		switch {
		case err == nil:
			w.add(crd, l)
		case !apierrors.IsNotFound(err):
			return w, err
		}
	}
	return w, nil
}

var crds = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

func (w *world) add(u *unstructured.Unstructured, l *lane) {
	name := u.GetKind() + "/" + u.GetName()
	if u.GetName() == "kube-root-ca.crt" || u.GetName() == daemonAccount || len(u.GetOwnerReferences()) > 0 {
		return
	}
	w.uids[name] = string(u.GetUID())
	if u.GetLabels()[object.EnvironmentLabel] == string(l.uid) {
		w.labeled = append(w.labeled, name)
	}
	if name == "ConfigMap/tick" {
		w.tick, _, _ = unstructured.NestedString(u.Object, "data", "key")
		unstructured.RemoveNestedField(u.Object, "data", "key")
	}
	w.objects[name] = canonical(u, l)
}

// canonical is an object without resourceVersion, generation, UID, times, status and what else the server chooses, but with
// the fields that are ours by name.
func canonical(u *unstructured.Unstructured, l *lane) string {
	var ours []string
	for _, m := range u.GetManagedFields() {
		if m.Manager == object.FieldManager {
			ours = append(ours, string(m.Operation)+" "+m.Subresource+" "+m.FieldsV1.GetRawString())
		}
	}
	slices.Sort(ours)
	deleting := u.GetDeletionTimestamp() != nil
	for _, field := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "finalizers"} {
		unstructured.RemoveNestedField(u.Object, "metadata", field)
	}
	notes := u.GetAnnotations()
	delete(notes, "deployment.kubernetes.io/revision")
	if notes[object.BornAnnotation] != "" {
		notes[object.BornAnnotation] = "*"
	}
	u.SetAnnotations(notes)
	unstructured.RemoveNestedField(u.Object, "status")
	for _, field := range []string{"clusterIP", "clusterIPs"} {
		unstructured.RemoveNestedField(u.Object, "spec", field)
	}
	if u.GetKind() == "Job" { // the server names its pods by the UID
		for _, field := range [][]string{{"selector"}, {"template", "metadata", "labels"}} {
			unstructured.RemoveNestedField(u.Object, append([]string{"spec"}, field...)...)
		}
	}
	b, err := json.Marshal(map[string]any{"object": u.Object, "ours": ours, "deleting": deleting})
	if err != nil {
		return err.Error()
	}
	text := string(b)
	if l.group != "" {
		text = strings.ReplaceAll(text, l.group, "GROUP")
	}
	return strings.ReplaceAll(strings.ReplaceAll(text, l.ns, "NAMESPACE"), string(l.uid), "UID")
}

// difference names what differs between two states, or is empty.
func difference(want, got map[string]string) string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if g, ok := got[name]; !ok {
			lines = append(lines, name+" is missing")
		} else if g != want[name] {
			lines = append(lines, fmt.Sprintf("%s differs: want %s, got %s", name, want[name], g))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			lines = append(lines, name+" should not be there")
		}
	}
	return strings.Join(lines, "\n")
}

// generalized replaces the group of a lane's definition in names, so that golden states of different rounds compare.
func (w world) generalized(group string) map[string]string {
	if group == "" {
		return w.objects
	}
	out := map[string]string{}
	for name, text := range w.objects {
		out[strings.ReplaceAll(name, group, "GROUP")] = text
	}
	return out
}
