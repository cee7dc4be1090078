package kube

import (
	"errors"
	"strings"
	"testing"

	"github.com/nexus-platform/reconciler/e2e/cluster/clustertest"
	"github.com/nexus-platform/reconciler/kube/fields"
	"github.com/nexus-platform/reconciler/object"
)

// kindsOfAll is one object of each kind for which the preconditions are proved.
const kindsOfAll = `
{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: NS}, data: {k: v}}
---
{apiVersion: v1, kind: Secret, metadata: {name: a, namespace: NS}, data: {k: dg==}}
---
{apiVersion: v1, kind: Service, metadata: {name: a, namespace: NS}, spec: {selector: {app: a}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: NS}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, namespace: NS}, spec: {replicas: 0, selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: app, image: x}]}}}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: a, namespace: NS}, spec: {replicas: 0, serviceName: a, selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: app, image: x}]}}}}
---
{apiVersion: batch/v1, kind: Job, metadata: {name: a, namespace: NS}, spec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: app, image: x}]}}}}
---
{apiVersion: batch/v1, kind: CronJob, metadata: {name: a, namespace: NS}, spec: {schedule: "0 0 1 1 *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: app, image: x}]}}}}}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a, namespace: NS}, spec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Gi}}}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: a, namespace: NS}, rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: a, namespace: NS}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: a}, subjects: [{kind: ServiceAccount, name: a, namespace: NS}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: NS}, rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: NS}, spec: {podSelector: {}, policyTypes: [Ingress]}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a, namespace: NS}, spec: {rules: [{host: NS.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: a, port: {number: 80}}}}]}}]}}
---
{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: a, namespace: NS}, spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: a}}}
---
{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: a, namespace: NS}, spec: {minAvailable: 1, selector: {matchLabels: {app: a}}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: NS-2}}
---
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: NSs.example.dev}, spec: {group: example.dev, scope: Namespaced, names: {plural: NSs, kind: NS}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}, parts: {type: array, items: {type: object, properties: {name: {type: string}, v: {type: string}}}}}}}}}}]}}
---
{apiVersion: example.dev/v1, kind: NS, metadata: {name: a, namespace: NS}, spec: {size: 3}}
`

func TestEveryKindIsCreatedOnceUpdatedWithPreconditionsAndDeleted(t *testing.T) {
	c, _ := open(t, "env-kinds", nil)
	ns := clustertest.Namespace(t)
	for _, doc := range strings.Split(kindsOfAll, "---\n") {
		u := manifest(t, strings.ReplaceAll(doc, "NS", ns))
		t.Run(u.GetKind(), func(t *testing.T) {
			ctx := deadline(t)
			ref, version := object.RefOf(u), u.GroupVersionKind().Version
			create := Pre{Create: true, Born: "env-kinds/1"}
			var served *NoKindError
			for {
				_, err := c.DryRun(ctx, u, create)
				if errors.As(err, &served) && pause(ctx, rediscover) == nil {
					continue // the definition is being established
				}
				if err != nil {
					t.Fatalf("dry-run of a missing object: %v", err)
				}
				break
			}
			first, err := c.Apply(ctx, u, create)
			if err != nil {
				t.Fatalf("create: %v", err)
			}
			if !first.Created || first.Object.GetLabels()[object.EnvironmentLabel] != "env-kinds" || first.Object.GetAnnotations()[object.BornAnnotation] != "env-kinds/1" {
				t.Errorf("the created object is not marked as ours: %+v", first.Object.Object["metadata"])
			}
			again, err := c.Apply(ctx, u, create)
			if err != nil || again.UID != first.UID {
				t.Errorf("create again, as after a lost answer: %v", err)
			}
			var exists *ExistsError
			if _, err := c.Apply(ctx, u, Pre{Create: true, Born: "env-kinds/2"}); !errors.As(err, &exists) || !exists.Ours {
				t.Errorf("create in another epoch: %v", err)
			}
			if _, err := c.DryRun(ctx, u, Pre{Create: true}); !errors.As(err, &exists) {
				t.Errorf("dry-run of a create of what exists: %v", err)
			}
			now := read(t, c, u)
			rec, err := fields.Record(now)
			if err != nil || rec.Live != first.Record.Live || string(rec.Fields) != string(first.Record.Fields) {
				t.Errorf("the refused creates changed the object: %v\n%s\n%s", err, rec.Fields, first.Record.Fields)
			}
			change := u.DeepCopy()
			change.SetAnnotations(map[string]string{"x": "y"})
			var conflict *ConflictError
			if _, err := c.Apply(ctx, change, Pre{UID: now.GetUID(), ResourceVersion: "2", Force: true}); !errors.As(err, &conflict) {
				t.Errorf("update with an old resourceVersion: %v", err)
			}
			if _, err := c.Apply(ctx, change, Pre{UID: "11111111-1111-1111-1111-111111111111", ResourceVersion: now.GetResourceVersion(), Force: true}); !errors.As(err, &conflict) || !conflict.Replaced {
				t.Errorf("update with another uid: %v", err)
			}
			updated, err := c.Apply(ctx, change, PreOf(now, true))
			if err != nil || updated.Unchanged {
				t.Fatalf("update: %v, unchanged %t", err, updated.Unchanged)
			}
			if err := c.Delete(ctx, ref, version, "11111111-1111-1111-1111-111111111111", ""); !errors.As(err, &conflict) || !conflict.Replaced {
				t.Errorf("delete with another uid: %v", err)
			}
			if u.GetKind() == "CustomResourceDefinition" {
				return // its instances come next
			}
			if err := c.Delete(ctx, ref, version, now.GetUID(), now.GetResourceVersion()); !errors.As(err, &conflict) {
				t.Errorf("delete with an old resourceVersion: %v", err)
			}
			if err := c.Delete(ctx, ref, version, now.GetUID(), ""); err != nil {
				t.Fatalf("delete: %v", err)
			}
			if u.GetKind() == "Namespace" || u.GetKind() == "PersistentVolumeClaim" || u.GetKind() == "Job" {
				return // finalizers may keep it for a while
			}
			if err := c.Delete(ctx, ref, version, now.GetUID(), ""); err != nil {
				t.Errorf("delete what is gone: %v", err)
			}
			var gone *NotFoundError
			if _, err := c.Apply(ctx, change, PreOf(now, true)); !errors.As(err, &gone) {
				t.Errorf("update of what was deleted meanwhile must not create it: %v", err)
			}
		})
	}
}
