package health

import (
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// kinds are judged by rules of their own, where kstatus knows nothing of them or takes "no status yet" for an answer.
// decided false leaves the object to kstatus. (Among those left to it: an Ingress is Healthy once it is stored, because its address
// comes from a controller that many clusters do not have; who expects one writes a CEL rule.)
var kinds = map[string]func(live *unstructured.Unstructured, w World) (v Verdict, decided bool){
	"Deployment.apps":                         deployment,
	"StatefulSet.apps":                        statefulSet,
	"DaemonSet.apps":                          daemonSet,
	"Job.batch":                               job,
	"Pod":                                     pod,
	"Rollout.argoproj.io":                     rollout,
	"PersistentVolumeClaim":                   claim,
	"Service":                                 service,
	"HorizontalPodAutoscaler.autoscaling":     autoscaler,
	"Gateway.gateway.networking.k8s.io":       gateway,
	"HTTPRoute.gateway.networking.k8s.io":     route,
	"GRPCRoute.gateway.networking.k8s.io":     route,
	"TLSRoute.gateway.networking.k8s.io":      route,
	"TCPRoute.gateway.networking.k8s.io":      route,
	"UDPRoute.gateway.networking.k8s.io":      route,
	"HelmRepository.source.toolkit.fluxcd.io": helmRepository,
	"Cluster.postgresql.cnpg.io":              postgres,
}

// awaited are the conditions that the controller of a kind, or of all kinds of a group, always sets.
var awaited = map[string]string{
	"APIService.apiregistration.k8s.io":       "Available",
	"ScaledObject.keda.sh":                    "Ready",
	"ScaledJob.keda.sh":                       "Ready",
	"SealedSecret.bitnami.com":                "Synced",
	"Receiver.notification.toolkit.fluxcd.io": "Ready",
	"cert-manager.io":                         "Ready",
	"external-secrets.io":                     "Ready",
	"source.toolkit.fluxcd.io":                "Ready",
	"kustomize.toolkit.fluxcd.io":             "Ready",
	"helm.toolkit.fluxcd.io":                  "Ready",
	"image.toolkit.fluxcd.io":                 "Ready",
	"serving.knative.dev":                     "Ready",
	"eventing.knative.dev":                    "Ready",
}

func awaitedCondition(live *unstructured.Unstructured) string {
	if c := awaited[kindOf(live)]; c != "" {
		return c
	}
	if group := live.GroupVersionKind().Group; group != "" {
		return awaited[group]
	}
	return ""
}

// claim: a claim that nobody needs yet may wait for its first consumer, as its storage class may say; one that a pod mounts, or
// for which a node was chosen, must be bound.
func claim(live *unstructured.Unstructured, w World) (Verdict, bool) {
	switch phase := text(live, "status", "phase"); phase {
	case "Bound":
		return Verdict{State: Healthy, Reason: phase}, true
	case "Lost":
		return Verdict{State: Failed, Reason: phase, Message: "its volume is gone"}, true
	case "":
		return Verdict{State: Progressing, Reason: "NoStatus", Message: "nobody has looked for a volume yet"}, true
	}
	if node := live.GetAnnotations()["volume.kubernetes.io/selected-node"]; node != "" {
		return Verdict{State: Progressing, Reason: "Pending", Message: "is not bound yet although a pod waits for it on node " + node}, true
	}
	if name := mountedBy(live, w); name != "" {
		return Verdict{State: Progressing, Reason: "Pending", Message: "is not bound although pod " + name + " mounts it"}, true
	}
	return Verdict{State: Healthy, Reason: "Unused", Message: "is not bound; no pod mounts it yet"}, true
}

func mountedBy(live *unstructured.Unstructured, w World) string {
	if w == nil {
		return ""
	}
	first := ""
	for _, pod := range w.Pods(live.GetNamespace()) {
		for _, v := range pod.Spec.Volumes {
			if v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == live.GetName() && (first == "" || pod.Name < first) {
				first = pod.Name
			}
		}
	}
	return first
}

// service: whoever asks for a load balancer asks for its address, as Argo CD sees it.
func service(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	if text(live, "spec", "type") != "LoadBalancer" {
		return Verdict{}, false
	}
	if given, _ := field[[]any](live.Object, "status", "loadBalancer", "ingress"); len(given) == 0 {
		return Verdict{State: Progressing, Reason: "NoAddress", Message: "its load balancer has no address yet; " +
			"where nothing in the cluster gives one, a health rule of the policy can say healthy: \"true\""}, true
	}
	return Verdict{State: Healthy, Reason: "AddressGiven"}, true
}

// autoscaler: one that cannot read or write its target will never scale; one that has no figures yet will.
func autoscaler(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	if c := conditionOf(live, "AbleToScale"); c.status == "False" && slices.Contains([]string{"FailedGetScale", "FailedUpdateScale"}, c.reason) {
		return Verdict{State: Progressing, Reason: c.reason, Message: c.message}, true
	}
	if c := conditionOf(live, "ScalingActive"); c.status == "False" && c.reason == "InvalidSelector" {
		return Verdict{State: Progressing, Reason: c.reason, Message: c.message}, true
	}
	return Verdict{State: Healthy, Reason: "Active"}, true
}

func gateway(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	if v := needs(live, "Accepted"); v.State != Healthy {
		return v, true
	}
	return needs(live, "Programmed"), true
}

// route: every parent that it names must have accepted what was applied, and found what it refers to.
func route(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	refs, _ := field[[]any](live.Object, "spec", "parentRefs")
	parents, _ := field[[]any](live.Object, "status", "parents")
	if len(parents) == 0 || len(parents) < len(refs) {
		return Verdict{State: Progressing, Reason: "NoStatus", Message: ratio("gateways that have answered", int64(len(parents)), int64(len(refs)))}, true
	}
	for _, p := range parents {
		parent, _ := p.(map[string]any)
		name, _ := field[string](parent, "parentRef", "name")
		accepted, resolved := conditionIn(parent, "Accepted", live.GetGeneration()), conditionIn(parent, "ResolvedRefs", live.GetGeneration())
		switch {
		case accepted.status == "" || accepted.stale || resolved.stale:
			return Verdict{State: Progressing, Reason: "Unobserved", Message: "gateway " + name + " has not seen the change yet"}, true
		case accepted.status != "True":
			return Verdict{State: Progressing, Reason: accepted.reasonOr("NotAccepted"), Message: "gateway " + name + ": " + accepted.message}, true
		case resolved.status == "False":
			return Verdict{State: Progressing, Reason: resolved.reasonOr("UnresolvedRefs"), Message: "gateway " + name + ": " + resolved.message}, true
		}
	}
	return Verdict{State: Healthy, Reason: "Accepted"}, true
}

// helmRepository: one of type oci has no status at all (Flux documents it as static).
func helmRepository(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	if text(live, "spec", "type") == "oci" {
		return Verdict{State: Healthy, Reason: "Static"}, true
	}
	return needs(live, "Ready"), true
}

// postgres is a CloudNativePG cluster. It has no observedGeneration, so its instances and image are compared too.
func postgres(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	phase, why := text(live, "status", "phase"), text(live, "status", "phaseReason")
	if why != "" {
		why = ": " + why
	}
	wanted, ready := number(live, 1, "spec", "instances"), number(live, 0, "status", "readyInstances")
	image, asked := text(live, "status", "image"), text(live, "spec", "imageName")
	switch {
	case strings.Contains(phase, "unrecoverable"):
		return Verdict{State: Failed, Reason: "Unrecoverable", Message: phase + why}, true
	case phase == "":
		return Verdict{State: Progressing, Reason: "NoStatus", Message: "its operator has not seen it yet"}, true
	case phase != "Cluster in healthy state":
		return Verdict{State: Progressing, Reason: "NotHealthy", Message: phase + why}, true
	case ready < wanted:
		return Verdict{State: Progressing, Reason: "LessReady", Message: ratio("instances ready", ready, wanted)}, true
	case image != "" && asked != "" && image != asked:
		return Verdict{State: Progressing, Reason: "OldImage", Message: "still runs " + image}, true
	}
	if c := conditionOf(live, "Ready"); c.status != "" && c.status != "True" {
		return Verdict{State: Progressing, Reason: c.reasonOr("NotReady"), Message: c.message}, true
	}
	return Verdict{State: Healthy, Reason: "Ready", Message: phase}, true
}

func generationText(live *unstructured.Unstructured) string {
	return strconv.FormatInt(live.GetGeneration(), 10)
}
