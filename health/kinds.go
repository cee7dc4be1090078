package health

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// kinds are judged by rules of their own, where kstatus knows nothing of them or takes "no
// status yet" for an answer. decided false leaves the object to kstatus.
var kinds = map[string]func(live *unstructured.Unstructured, w World) (v Verdict, decided bool){
	"Deployment.apps":                                             paused,
	"Job.batch":                                                   job,
	"PersistentVolumeClaim":                                       claim,
	"APIService.apiregistration.k8s.io":                           needs("Available"),
	"Gateway.gateway.networking.k8s.io":                           needs("Programmed"),
	"HTTPRoute.gateway.networking.k8s.io":                         route,
	"GRPCRoute.gateway.networking.k8s.io":                         route,
	"TLSRoute.gateway.networking.k8s.io":                          route,
	"TCPRoute.gateway.networking.k8s.io":                          route,
	"UDPRoute.gateway.networking.k8s.io":                          route,
	"Certificate.cert-manager.io":                                 needs("Ready"),
	"Issuer.cert-manager.io":                                      needs("Ready"),
	"ClusterIssuer.cert-manager.io":                               needs("Ready"),
	"Cluster.postgresql.cnpg.io":                                  needs("Ready"),
	"GitRepository.source.toolkit.fluxcd.io":                      needs("Ready"),
	"OCIRepository.source.toolkit.fluxcd.io":                      needs("Ready"),
	"HelmRepository.source.toolkit.fluxcd.io":                     hasOrHelmOCI,
	"Kustomization.kustomize.toolkit.fluxcd.io":                   needs("Ready"),
	"HelmRelease.helm.toolkit.fluxcd.io":                          needs("Ready"),
	"ExternalSecret.external-secrets.io":                          needs("Ready"),
	"Rollout.argoproj.io":                                         rollout,
	"HorizontalPodAutoscaler.autoscaling":                         autoscaler,
	"ValidatingWebhookConfiguration.admissionregistration.k8s.io": stored,
	"MutatingWebhookConfiguration.admissionregistration.k8s.io":   stored,
	"CronJob.batch":                                               stored,
	"Ingress.networking.k8s.io":                                   stored, // its address comes from a controller that many clusters do not have
}

func stored(*unstructured.Unstructured, World) (Verdict, bool) {
	return Verdict{State: Healthy, Reason: "Stored"}, true
}

// paused: a Deployment that is told not to roll out is what it was asked to be.
func paused(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	on, _, _ := unstructured.NestedBool(live.Object, "spec", "paused")
	return Verdict{State: Healthy, Reason: "Paused", Message: "spec.paused: nothing rolls out"}, on
}

// job: a failed Job stays failed, even if it says that it is complete too; a suspended one is what it was asked to be.
func job(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	if c := condition(live, "Failed"); c.status == "True" {
		return Verdict{State: Failed, Reason: c.reasonOr("JobFailed"), Message: c.message}, true
	}
	if on, _, _ := unstructured.NestedBool(live.Object, "spec", "suspend"); on {
		return Verdict{State: Healthy, Reason: "Suspended"}, true
	}
	if c := condition(live, "Complete"); c.status == "True" {
		return Verdict{State: Healthy, Reason: "Complete"}, true
	}
	return Verdict{State: Progressing, Reason: "Running", Message: "the Job has not ended"}, true
}

// claim: a claim that no pod mounts may wait for its first consumer; one that a pod mounts must be bound.
func claim(live *unstructured.Unstructured, w World) (Verdict, bool) {
	phase, _, _ := unstructured.NestedString(live.Object, "status", "phase")
	switch phase {
	case "Bound":
		return Verdict{State: Healthy, Reason: "Bound"}, true
	case "Lost":
		return Verdict{State: Failed, Reason: "Lost", Message: "its volume is gone"}, true
	}
	if w == nil {
		return Verdict{State: Progressing, Reason: "Pending", Message: "is not bound"}, true
	}
	for _, pod := range w.Pods(live.GetNamespace()) {
		for _, v := range pod.Spec.Volumes {
			if v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == live.GetName() {
				return Verdict{State: Progressing, Reason: "Pending", Message: "is not bound although pod " + pod.Name + " mounts it"}, true
			}
		}
	}
	return Verdict{State: Healthy, Reason: "Unused", Message: "no pod mounts it yet"}, true
}

// needs waits for a condition that the kind's controller always sets.
func needs(kind string) func(*unstructured.Unstructured, World) (Verdict, bool) {
	return func(live *unstructured.Unstructured, _ World) (Verdict, bool) {
		c := condition(live, kind)
		observed, known, _ := unstructured.NestedInt64(live.Object, "status", "observedGeneration")
		switch {
		case known && observed < live.GetGeneration():
			return Verdict{State: Progressing, Reason: "Unobserved", Message: "its controller has not seen the change yet"}, true
		case condition(live, "Stalled").status == "True":
			s := condition(live, "Stalled")
			return Verdict{State: Failed, Reason: s.reasonOr("Stalled"), Message: s.message}, true
		case c.status == "True":
			return Verdict{State: Healthy, Reason: kind}, true
		case c.status == "":
			return Verdict{State: Progressing, Reason: "NoStatus", Message: "has no condition " + kind + " yet"}, true
		}
		return Verdict{State: Progressing, Reason: c.reasonOr("Not" + kind), Message: c.message}, true
	}
}

// hasOrHelmOCI: a HelmRepository of type oci has no status at all (Flux documents it as static).
func hasOrHelmOCI(live *unstructured.Unstructured, w World) (Verdict, bool) {
	if kind, _, _ := unstructured.NestedString(live.Object, "spec", "type"); kind == "oci" {
		return stored(live, w)
	}
	return needs("Ready")(live, w)
}

// route: every parent must accept it and resolve its references.
func route(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	parents, _, _ := unstructured.NestedSlice(live.Object, "status", "parents")
	if len(parents) == 0 {
		return Verdict{State: Progressing, Reason: "NoStatus", Message: "no gateway has accepted it yet"}, true
	}
	for _, p := range parents {
		parent, _ := p.(map[string]any)
		for _, kind := range []string{"Accepted", "ResolvedRefs"} {
			if c := conditionIn(parent, kind); c.status == "False" {
				return Verdict{State: Progressing, Reason: c.reasonOr("Not" + kind), Message: c.message}, true
			}
		}
	}
	return Verdict{State: Healthy, Reason: "Accepted"}, true
}

// rollout is Argo Rollouts' own phase.
func rollout(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	phase, _, _ := unstructured.NestedString(live.Object, "status", "phase")
	message, _, _ := unstructured.NestedString(live.Object, "status", "message")
	observed, _, _ := unstructured.NestedString(live.Object, "status", "observedGeneration")
	switch {
	case observed != fmt.Sprint(live.GetGeneration()):
		return Verdict{State: Progressing, Reason: "Unobserved", Message: "its controller has not seen the change yet"}, true
	case phase == "Healthy":
		return Verdict{State: Healthy, Reason: phase}, true
	case phase == "Degraded":
		return Verdict{State: Failed, Reason: phase, Message: message}, true
	}
	return Verdict{State: Progressing, Reason: "Rollout" + phase, Message: message}, true
}

// autoscaler: one that cannot read its target will never scale; one that has no figures yet will.
func autoscaler(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	if c := condition(live, "AbleToScale"); c.status == "False" && slices.Contains([]string{"FailedGetScale", "FailedUpdateScale"}, c.reason) {
		return Verdict{State: Progressing, Reason: c.reason, Message: c.message}, true
	}
	return Verdict{State: Healthy, Reason: "Active"}, true
}

type conditionOf struct{ status, reason, message string }

func (c conditionOf) reasonOr(other string) string {
	if c.reason == "" {
		return other
	}
	return c.reason
}

func condition(live *unstructured.Unstructured, kind string) conditionOf {
	s, _, _ := unstructured.NestedMap(live.Object, "status")
	return conditionIn(s, kind)
}

func conditionIn(m map[string]any, kind string) conditionOf {
	list, _ := m["conditions"].([]any)
	for _, item := range list {
		c, _ := item.(map[string]any)
		if c["type"] == kind {
			s, _ := c["status"].(string)
			r, _ := c["reason"].(string)
			text, _ := c["message"].(string)
			return conditionOf{status: s, reason: r, message: strings.TrimSpace(text)}
		}
	}
	return conditionOf{}
}
