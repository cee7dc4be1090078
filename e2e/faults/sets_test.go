package faults

import (
	"fmt"
	"strings"
)

// The release that is swept: objects of every phase, changed, created, pruned (one of them early), adopted and made anew, a
// definition with an instance, a Job that has to end before the application starts, and a Secret. next is it; base is what is deployed before.

const policy = `apiVersion: nexus.dev/v1alpha1
kind: ReleasePolicy
spec:
  settle: 0s
  bake: 0s
  patience: 40s
  prune: {maxPercent: 100}
  health: {crashTolerance: 0, firstCrashTolerance: 0}
`

func configMap(name, value string, annotations ...string) string {
	return "apiVersion: v1\nkind: ConfigMap\n" + meta(name, annotations...) + "data: {key: \"" + value + "\"}\n"
}

func meta(name string, annotations ...string) string {
	m := "metadata:\n  name: " + name + "\n"
	if len(annotations) > 0 {
		m += "  annotations: {" + strings.Join(annotations, ", ") + "}\n"
	}
	return m
}

// canary is in every Secret and must never be seen elsewhere.
const canary = "c4n4ry-of-the-sweep"

func secret(name, value string) string {
	return "apiVersion: v1\nkind: Secret\n" + meta(name) + "stringData: {password: " + canary + "-" + value + "}\n"
}

func workload(kind, name, app, tag string, labels string, annotations ...string) string {
	body := "apiVersion: apps/v1\nkind: " + kind + "\n" + meta(name, annotations...)
	if labels != "" {
		body += "  labels: {" + labels + "}\n"
	}
	body += "spec:\n  replicas: 1\n"
	if kind == "StatefulSet" {
		body += "  serviceName: " + name + "\n"
	}
	return body + "  selector: {matchLabels: {app: " + app + "}}\n  template:\n    metadata: {labels: {app: " + app + "}}\n" +
		"    spec: {terminationGracePeriodSeconds: 0, containers: [{name: app, image: \"example/app:" + tag + "\"}]}\n"
}

func service(name string, port int) string {
	return "apiVersion: v1\nkind: Service\n" + meta(name) + fmt.Sprintf("spec: {selector: {app: web}, ports: [{port: %d, name: http}]}\n", port)
}

func job(name string) string {
	return "apiVersion: batch/v1\nkind: Job\n" + meta(name, migrated) +
		"spec: {template: {spec: {restartPolicy: Never, containers: [{name: app, image: \"example/app:1\"}]}}}\n"
}

func role(verb string) string {
	return "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n" + meta("reader") + "rules: [{apiGroups: [\"\"], resources: [pods], verbs: [" + verb + "]}]\n"
}

const (
	recreate  = `nexus.dev/recreate: "true"`
	early     = `nexus.dev/prune: before`
	adopt     = `nexus.dev/adopt: "true"`
	migrated  = `nexus.dev/phase: migrations`
	monitored = `nexus.dev/phase: monitoring`
	networked = `nexus.dev/phase: networking`
	database  = "app.kubernetes.io/component: database"
)

// base is what is deployed before the release. tick is a number that makes one differ from the next.
func base(tick int) map[string]string {
	return map[string]string{
		"tick.yaml": configMap("tick", fmt.Sprint(tick)), "settings.yaml": configMap("settings", "1"), "token.yaml": secret("token", "1"),
		"role.yaml": role("get"), "web-service.yaml": service("web", 80), "web.yaml": workload("Deployment", "web", "web", "1", ""),
		"db.yaml": workload("StatefulSet", "db", "db", "1", database), "fixed.yaml": workload("Deployment", "fixed", "fixed", "1", "", recreate),
		"old.yaml": configMap("old", "1"), "legacy.yaml": configMap("legacy", "1", early), "retired.yaml": workload("Deployment", "retired", "retired", "1", ""),
		"dashboard.yaml": configMap("dashboard", "1", monitored), "route.yaml": configMap("route", "1", networked),
	}
}

// next is the release: good, or with an application that crashes.
func next(tick int, bad bool, group string) map[string]string {
	tag := map[bool]string{true: "crashloop", false: "2"}[bad]
	set := map[string]string{
		"tick.yaml": configMap("tick", fmt.Sprint(tick)), "settings.yaml": configMap("settings", "2"), "token.yaml": secret("token", "2"),
		"role.yaml": role("list"), "web-service.yaml": service("web", 8080), "web.yaml": workload("Deployment", "web", "web", tag, ""),
		"db.yaml": workload("StatefulSet", "db", "db", "2", database), "fixed.yaml": workload("Deployment", "fixed", "changed", "1", "", recreate),
		"new.yaml": configMap("new", "1"), "worker.yaml": workload("Deployment", "worker", "worker", "1", ""), "key.yaml": secret("key", "1"),
		"theirs.yaml": configMap("theirs", "theirs", adopt) + "immutable: false\n", "new-service.yaml": service("new", 80), "job.yaml": job("once"),
		"dashboard.yaml": configMap("dashboard", "2", monitored), "route.yaml": configMap("route", "2", networked),
	}
	if group != "" {
		set["crd.yaml"] = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n" + meta("widgets."+group) + `spec:
  group: ` + group + `
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget, listKind: WidgetList}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`
		set["widget.yaml"] = "apiVersion: " + group + "/v1\nkind: Widget\n" + meta("w") + "spec: {size: 1}\n"
	}
	return set
}

// small is a release of few writes, for faults in pairs.
func small(tick int, bad bool) map[string]string {
	tag := map[bool]string{true: "crashloop", false: "2"}[bad]
	return map[string]string{
		"tick.yaml": configMap("tick", fmt.Sprint(tick)), "settings.yaml": configMap("settings", "2"),
		"web.yaml": workload("Deployment", "web", "web", tag, ""), "new.yaml": configMap("new", "1"),
	}
}

// smallBase is what is deployed before it.
func smallBase(tick int) map[string]string {
	return map[string]string{
		"tick.yaml": configMap("tick", fmt.Sprint(tick)), "settings.yaml": configMap("settings", "1"),
		"web.yaml": workload("Deployment", "web", "web", "1", ""), "old.yaml": configMap("old", "1"),
	}
}
