package needs_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/validate/needs"
)

func parse(t *testing.T, text string) object.Object {
	t.Helper()
	b, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(b); err != nil {
		t.Fatal(err)
	}
	o, err := object.NewObject(u, object.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

const head = "metadata: {name: a, namespace: shop}\n"

func TestEveryWorkloadHasItsPodWhereItsKindKeepsIt(t *testing.T) {
	const pod, template = "{serviceAccountName: x}", "{template: {spec: {serviceAccountName: x}}}"
	for _, c := range []struct{ kind, spec, field string }{
		{"apiVersion: v1\nkind: Pod", "spec: " + pod, "spec"},
		{"apiVersion: v1\nkind: PodTemplate", "template: {spec: " + pod + "}", "template.spec"},
		{"apiVersion: v1\nkind: ReplicationController", "spec: " + template, "spec.template.spec"},
		{"apiVersion: apps/v1\nkind: Deployment", "spec: " + template, "spec.template.spec"},
		{"apiVersion: apps/v1\nkind: StatefulSet", "spec: " + template, "spec.template.spec"},
		{"apiVersion: apps/v1\nkind: DaemonSet", "spec: " + template, "spec.template.spec"},
		{"apiVersion: apps/v1\nkind: ReplicaSet", "spec: " + template, "spec.template.spec"},
		{"apiVersion: batch/v1\nkind: Job", "spec: " + template, "spec.template.spec"},
		{"apiVersion: batch/v1\nkind: CronJob", "spec: {jobTemplate: {spec: " + template + "}}", "spec.jobTemplate.spec.template.spec"},
	} {
		p, err := needs.PodOf(parse(t, c.kind+"\n"+head+c.spec))
		if err != nil || p == nil || p.Field != c.field || p.Spec.ServiceAccountName != "x" {
			t.Errorf("%s: got %+v, %v", c.kind, p, err)
		}
	}
}

func TestWhatRunsNoPodHasNone(t *testing.T) {
	for _, text := range []string{"apiVersion: v1\nkind: ConfigMap\n", "apiVersion: example.com/v1\nkind: Deployment\n"} {
		if p, err := needs.PodOf(parse(t, text+head+"spec: {template: {spec: {}}}")); p != nil || err != nil {
			t.Errorf("%s: got %v, %v", text, p, err)
		}
	}
	p, err := needs.PodOf(parse(t, "apiVersion: apps/v1\nkind: Deployment\n"+head))
	if !errors.Is(err, needs.ErrNoPod) || p == nil || p.Field != "spec.template.spec" {
		t.Errorf("a workload without a pod: got %v, %v", p, err)
	}
}

func TestEveryWayToNeedSomethingIsSeen(t *testing.T) {
	for _, c := range []struct{ name, spec, want string }{
		{"a service account", "serviceAccountName: x", "ServiceAccount/shop/x at spec.serviceAccountName"},
		{"a service account in its old field", "serviceAccount: x", "ServiceAccount/shop/x at spec.serviceAccount"},
		{"a pull secret", "imagePullSecrets: [{name: x}]", "Secret/shop/x at spec.imagePullSecrets[0] (soft)"},
		{"a key of a ConfigMap", "containers: [{env: [{valueFrom: {configMapKeyRef: {name: x, key: k}}}]}]", "ConfigMap/shop/x at spec.containers[0].env[0] key k"},
		{"a key of a Secret", "containers: [{env: [{}, {valueFrom: {secretKeyRef: {name: x, key: k}}}]}]", "Secret/shop/x at spec.containers[0].env[1] key k"},
		{"all of a ConfigMap", "initContainers: [{envFrom: [{configMapRef: {name: x}}]}]", "ConfigMap/shop/x at spec.initContainers[0].envFrom[0]"},
		{"all of a Secret", "initContainers: [{envFrom: [{secretRef: {name: x}}]}]", "Secret/shop/x at spec.initContainers[0].envFrom[0]"},
		{"an optional key", "containers: [{env: [{valueFrom: {secretKeyRef: {name: x, key: k, optional: true}}}]}]", ""},
		{"an optional volume", "volumes: [{configMap: {name: x, optional: true, items: [{key: k}]}}]", ""},
		{"a key that is expressly needed", "containers: [{env: [{valueFrom: {secretKeyRef: {name: x, key: k, optional: false}}}]}]", "Secret/shop/x at spec.containers[0].env[0] key k"},
		{"a ConfigMap as a volume", "volumes: [{configMap: {name: x}}]", "ConfigMap/shop/x at spec.volumes[0].configMap"},
		{"one item of a Secret", "volumes: [{secret: {secretName: x, items: [{key: k}]}}]", "Secret/shop/x at spec.volumes[0].secret key k"},
		{"a claim", "volumes: [{persistentVolumeClaim: {claimName: x}}]", "PersistentVolumeClaim/shop/x at spec.volumes[0].persistentVolumeClaim"},
		{"a projected Secret", "volumes: [{projected: {sources: [{downwardAPI: {}}, {secret: {name: x}}]}}]", "Secret/shop/x at spec.volumes[0].projected.sources[1]"},
		{"a projected ConfigMap", "volumes: [{projected: {sources: [{configMap: {name: x}}]}}]", "ConfigMap/shop/x at spec.volumes[0].projected.sources[0]"},
		{"a CSI driver's Secret", "volumes: [{csi: {driver: d, nodePublishSecretRef: {name: x}}}]", "Secret/shop/x at spec.volumes[0].csi.nodePublishSecretRef"},
		{"an Azure share's Secret", "volumes: [{azureFile: {secretName: x}}]", "Secret/shop/x at spec.volumes[0].azureFile"},
		{"an iSCSI target's Secret", "volumes: [{iscsi: {secretRef: {name: x}}}]", "Secret/shop/x at spec.volumes[0].iscsi.secretRef"},
		{"a Ceph file system's Secret", "volumes: [{cephfs: {secretRef: {name: x}}}]", "Secret/shop/x at spec.volumes[0].cephfs.secretRef"},
		{"a Ceph block device's Secret", "volumes: [{rbd: {secretRef: {name: x}}}]", "Secret/shop/x at spec.volumes[0].rbd.secretRef"},
		{"a flex volume's Secret", "volumes: [{flexVolume: {driver: d, secretRef: {name: x}}}]", "Secret/shop/x at spec.volumes[0].flexVolume.secretRef"},
		{"a volume that needs nothing", "volumes: [{emptyDir: {}}]", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := needs.PodOf(parse(t, "apiVersion: v1\nkind: Pod\n"+head+"spec: {"+c.spec+"}"))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, n := range needs.OfPod("shop", p) {
				got += n.Ref.String() + " at " + n.Field
				if n.Key != "" {
					got += " key " + n.Key
				}
				if n.Soft {
					got += " (soft)"
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
