package health

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// deployment adds the pause to what kstatus knows: a paused Deployment never says that it has progressed. What has been
// rolled out before the pause is Healthy; what has not would leave the old template running behind a green release.
func deployment(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	if on, _ := field[bool](live.Object, "spec", "paused"); !on {
		return Verdict{}, false
	}
	replicas := number(live, 1, "spec", "replicas")
	updated, available := number(live, 0, "status", "updatedReplicas"), number(live, 0, "status", "availableReplicas")
	if updated >= replicas && available >= replicas && replicas > 0 {
		return Verdict{State: Healthy, Reason: "Paused", Message: "spec.paused is set; all of it had been rolled out before"}, true
	}
	if replicas == 0 && number(live, 0, "status", "replicas") == 0 {
		return Verdict{State: Healthy, Reason: "Paused", Message: "spec.paused is set; it is asked to run no pods"}, true
	}
	return Verdict{State: Progressing, Reason: "Paused",
		Message: "spec.paused keeps the applied template from being rolled out (" + ratio("updated", updated, replicas) + "); unpause it"}, true
}

// statefulSet: with OnDelete a person replaces the pods, so old ones are what was asked for, as long as they are ready.
func statefulSet(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	replicas := number(live, 1, "spec", "replicas")
	if text(live, "spec", "updateStrategy", "type") == "OnDelete" {
		if ready := number(live, 0, "status", "readyReplicas"); ready < replicas {
			return Verdict{State: Progressing, Reason: "LessReady", Message: ratio("Ready", ready, replicas)}, true
		}
		return Verdict{State: Healthy, Reason: "OnDelete", Message: "all pods are ready; whoever deletes one gets the applied template"}, true
	}
	v := byStatus(live)
	// kstatus takes ready for available.
	if available := number(live, 0, "status", "availableReplicas"); v.State == Healthy && number(live, 0, "spec", "minReadySeconds") > 0 && available < replicas {
		return Verdict{State: Progressing, Reason: "LessAvailable", Message: ratio("Available", available, replicas)}, true
	}
	return v, true
}

func daemonSet(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	if text(live, "spec", "updateStrategy", "type") != "OnDelete" {
		return Verdict{}, false
	}
	desired, available := number(live, 0, "status", "desiredNumberScheduled"), number(live, 0, "status", "numberAvailable")
	if available < desired {
		return Verdict{State: Progressing, Reason: "LessAvailable", Message: ratio("Available", available, desired)}, true
	}
	return Verdict{State: Healthy, Reason: "OnDelete", Message: "all pods are available; whoever deletes one gets the applied template"}, true
}

// job: a failed Job stays failed, even if it says that it is complete too; a suspended one is what it was asked to be.
// kstatus takes a Job that runs for done.
func job(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	for _, kind := range []string{"Failed", "FailureTarget"} { // the latter comes first, while its pods are stopped
		if c := conditionOf(live, kind); c.status == "True" {
			return Verdict{State: Failed, Reason: c.reasonOr("JobFailed"), Message: c.message}, true
		}
	}
	if conditionOf(live, "Complete").status == "True" {
		return Verdict{State: Healthy, Reason: "Complete"}, true
	}
	if on, _ := field[bool](live.Object, "spec", "suspend"); on {
		return Verdict{State: Healthy, Reason: "Suspended", Message: "spec.suspend is set; it does not run"}, true
	}
	return Verdict{State: Progressing, Reason: "Running", Message: "the Job has not ended"}, true
}

// pod: kstatus takes a failed pod for done, and asks the clock of the machine.
func pod(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	switch phase := text(live, "status", "phase"); phase {
	case "Succeeded":
		return Verdict{State: Healthy, Reason: phase}, true
	case "Failed":
		reason := text(live, "status", "reason")
		if reason == "" {
			reason = "PodFailed"
		}
		return Verdict{State: Failed, Reason: reason, Message: text(live, "status", "message")}, true
	case "Running":
		if conditionOf(live, "Ready").status == "True" {
			return Verdict{State: Healthy, Reason: "Ready"}, true
		}
		return Verdict{State: Progressing, Reason: "NotReady", Message: conditionOf(live, "Ready").message}, true
	}
	return Verdict{State: Progressing, Reason: "Pending", Message: "the pod has not started"}, true
}

// rollout is Argo Rollouts' own phase. Its observedGeneration is a string.
func rollout(live *unstructured.Unstructured, _ World) (Verdict, bool) {
	message := text(live, "status", "message")
	if text(live, "status", "observedGeneration") != generationText(live) {
		return Verdict{State: Progressing, Reason: "Unobserved", Message: "its controller has not seen the change yet"}, true
	}
	switch phase := text(live, "status", "phase"); phase {
	case "Healthy":
		return Verdict{State: Healthy, Reason: phase, Message: message}, true
	case "Degraded":
		return Verdict{State: Failed, Reason: phase, Message: message}, true
	case "Paused":
		return Verdict{State: Progressing, Reason: phase, Message: "waits to be promoted: " + message}, true
	}
	return Verdict{State: Progressing, Reason: "Progressing", Message: message}, true
}
