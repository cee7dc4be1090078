package validate

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/nexus-platform/reconciler/object"
)

// identity checks that o says what it is. False: it cannot be named, so nothing else about it is checked.
func (r *run) identity(o object.Object) bool {
	u := o.Body.Object
	ok := true
	for _, field := range []string{"apiVersion", "kind"} {
		if s, isString := u[field].(string); !isString || s == "" {
			r.refuse(o, "no-kind", field, "is missing or not a string", "write "+field+", as in apiVersion: apps/v1, kind: Deployment")
			ok = false
		}
	}
	if !ok {
		return false
	}
	if _, err := schema.ParseGroupVersion(o.Body.GetAPIVersion()); err != nil {
		r.refuse(o, "no-kind", "apiVersion", "is neither version nor group/version", "write it as in apiVersion: apps/v1")
		return false
	}
	if _, isList := u["items"].([]any); isList && strings.HasSuffix(o.Ref.Kind, "List") {
		r.refuse(o, "nested-list", "kind", "is a list inside a list", "write its items as documents of their own")
		return false
	}
	return r.name(o)
}

func (r *run) name(o object.Object) bool {
	meta, isMap := o.Body.Object["metadata"].(map[string]any)
	if !isMap {
		r.refuse(o, "no-name", "metadata", "is missing or not a map", "write metadata.name")
		return false
	}
	ok := true
	for _, field := range []string{"name", "namespace", "generateName"} {
		if v, has := meta[field]; has {
			if _, isString := v.(string); !isString {
				r.refuse(o, "no-name", "metadata."+field, "is not a string", "put it in quotation marks")
				ok = false
			}
		}
	}
	if _, has := meta["generateName"]; has {
		r.refuse(o, "generate-name", "metadata.generateName", "gives the object another name in each release", "write metadata.name instead")
	} else if ok && o.Ref.Name == "" {
		r.refuse(o, "no-name", "metadata.name", "is missing", "write metadata.name")
	}
	if !ok || o.Ref.Name == "" {
		return false
	}
	for _, fault := range r.nameFaults(o) {
		r.refuse(o, "name", "metadata.name", brief(fault), "choose another name")
	}
	if ns := o.Ref.Namespace; ns != "" && len(validation.IsDNS1123Label(ns)) > 0 {
		r.refuse(o, "name", "metadata.namespace", "is not a possible name of a namespace", "use lower case letters, digits and '-', at most 63")
	}
	return true
}

// nameFaults applies the rule of the kind to the name, as the API server would.
func (r *run) nameFaults(o object.Object) []string {
	name := o.Ref.Name
	switch gk := o.Ref.GroupKind().String(); {
	case o.Ref.Group == rbacGroup, slices.Contains([]string{"ClusterTrustBundle.certificates.k8s.io", "IPAddress.networking.k8s.io", "PodDisruptionBudget.policy"}, gk):
		return content.IsPathSegmentName(name)
	case gk == "Namespace":
		return validation.IsDNS1123Label(name)
	case gk == "Service":
		faults := validation.IsDNS1123Label(name)
		if len(faults) == 0 && !r.serverHas("1.36") {
			return r.byVersion(o, validation.IsDNS1035Label(name), "begins with a digit, which clusters before 1.36 refuse for a Service", "begin it with a letter")
		}
		return faults
	case gk == "StatefulSet.apps":
		faults := validation.IsDNS1123Subdomain(name)
		if len(faults) == 0 && (r.ServerVersion == nil || r.serverHas("1.37")) {
			return r.byVersion(o, validation.IsDNS1123Label(name), "has dots or more than 63 characters, which newer clusters refuse for a StatefulSet", "shorten it to one label")
		}
		return faults
	case gk == "CronJob.batch" && len(name) > 52:
		return []string{"is longer than 52 characters, so that the names of its Jobs do not fit"}
	case gk == "Job.batch" && len(name) > 63:
		return []string{"is longer than 63 characters, so that it does not fit into the label of its pods"}
	}
	return validation.IsDNS1123Subdomain(name)
}

func (r *run) serverHas(minor string) bool {
	return r.ServerVersion != nil && r.ServerVersion.AtLeast(version.MustParseGeneric(minor))
}

// byVersion makes a warning of faults that only some servers see, if nobody knows which one it will be.
func (r *run) byVersion(o object.Object, faults []string, message, fix string) []string {
	if r.ServerVersion != nil || len(faults) == 0 {
		return faults
	}
	r.warn(o, "name", "metadata.name", message, fix)
	return nil
}

// metadata checks labels and annotations.
func (r *run) metadata(o object.Object) {
	meta, _ := o.Body.Object["metadata"].(map[string]any)
	total := 0
	for _, field := range []string{"labels", "annotations"} {
		entries, isMap := meta[field].(map[string]any)
		if !isMap {
			if meta[field] != nil {
				r.refuse(o, field, "metadata."+field, "is not a map", "write key: value pairs")
			}
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(entries)) {
			at := fmt.Sprintf("metadata.%s[%s]", field, key)
			value, isString := entries[key].(string)
			if !isString {
				r.refuse(o, field, at, "is not a string", "put the value in quotation marks")
				continue
			}
			r.entry(o, field, at, key, value)
			if field == "annotations" {
				total += len(key) + len(value)
			}
		}
	}
	if total > maxAnnotations {
		r.refuse(o, "too-large", "metadata.annotations", fmt.Sprintf("are %d bytes, more than 256 KiB", total), "keep large data in a ConfigMap")
	}
}

func (r *run) entry(o object.Object, rule, at, key, value string) {
	name := key
	if rule == "annotations" {
		name = strings.ToLower(key) // as the server does
	}
	for _, fault := range validation.IsQualifiedName(name) {
		r.refuse(o, rule, at, "the key is not valid: "+brief(fault), "choose another key")
	}
	if rule == "labels" {
		for _, fault := range validation.IsValidLabelValue(value) {
			r.refuse(o, rule, at, "the value is not valid: "+brief(fault), "shorten it, or make it an annotation")
		}
	}
}

// brief drops the examples and the regular expression that Kubernetes appends.
func brief(fault string) string {
	text, _, _ := strings.Cut(fault, " (e.g. ")
	return text
}

// The limits of the API server and of etcd, in bytes.
const (
	maxData        = 1 << 20
	maxAnnotations = 256 << 10
	maxObject      = 3 << 19
)

// size refuses what would only be refused by etcd, in the middle of a release.
func (r *run) size(o object.Object) {
	if gk := o.Ref.GroupKind(); gk.Group == "" && (gk.Kind == "ConfigMap" || gk.Kind == "Secret") {
		if n := dataSize(o.Body.Object, gk.Kind == "Secret"); n > maxData {
			r.refuse(o, "too-large", "data", fmt.Sprintf("is %d bytes, over 1 MiB", n), "split it, or put the data into an image or a volume")
			return
		}
	}
	if weight(o.Body.Object) < maxObject/6 { // escapes take at most six bytes
		return
	}
	if b, err := json.Marshal(o.Body.Object); err == nil && len(b) > maxObject {
		r.refuse(o, "too-large", "", fmt.Sprintf("is %d bytes, more than the 1.5 MiB that etcd takes", len(b)), "split it")
	}
}

// dataSize adds up the values as the API server does: decoded, without the keys.
func dataSize(u map[string]any, secret bool) int {
	total := 0
	for field, encoded := range map[string]bool{"data": secret, "binaryData": true, "stringData": false} {
		values, _ := u[field].(map[string]any)
		for _, v := range values {
			s, _ := v.(string)
			if encoded {
				s = strings.TrimRight(strings.NewReplacer("\n", "", "\r", "").Replace(s), "=")
				total += len(s) * 3 / 4
			} else {
				total += len(s)
			}
		}
	}
	return total
}

// weight is a lower bound of the encoded size, found without encoding.
func weight(v any) int {
	n := 1
	switch v := v.(type) {
	case string:
		n += len(v)
	case map[string]any:
		for k, e := range v {
			n += len(k) + 3 + weight(e)
		}
	case []any:
		for _, e := range v {
			n += 1 + weight(e)
		}
	}
	return n
}
