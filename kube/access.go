package kube

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	authorization "k8s.io/api/authorization/v1"

	"github.com/nexus-platform/reconciler/kube/fault"
)

// Access is one thing that a release needs to do.
type Access struct {
	Verb      string // get, list, watch, patch, create, delete
	Group     string
	Resource  string // plural, as in Mapping.Resource; with a subresource: deployments/scale
	Namespace string // empty for what is in no namespace, or for all namespaces
	Name      string // empty for any
}

// Denied is an access that the environment's service account has not.
type Denied struct {
	Access
	Reason string // what the authorizer said; may be empty
}

// Allowed asks which of the accesses are missing: one request per namespace, and one for each
// access that the rules of the namespace do not grant or that is in none.
func (c *Cluster) Allowed(ctx context.Context, wanted []Access) ([]Denied, error) {
	rules := map[string][]authorization.ResourceRule{}
	var denied []Denied
	for _, a := range wanted {
		if a.Namespace != "" {
			known, ok := rules[a.Namespace]
			if !ok {
				review := &authorization.SelfSubjectRulesReview{Spec: authorization.SelfSubjectRulesReviewSpec{Namespace: a.Namespace}}
				if err := c.review(ctx, "selfsubjectrulesreviews", review); err != nil {
					return nil, err
				}
				known = review.Status.ResourceRules
				rules[a.Namespace] = known
			}
			if slices.ContainsFunc(known, a.grantedBy) {
				continue
			}
		}
		// The rules may be incomplete, as other authorizers than RBAC need not list theirs.
		resource, sub, _ := strings.Cut(a.Resource, "/")
		review := &authorization.SelfSubjectAccessReview{Spec: authorization.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorization.ResourceAttributes{
			Verb: a.Verb, Group: a.Group, Resource: resource, Subresource: sub, Namespace: a.Namespace, Name: a.Name,
		}}}
		if err := c.review(ctx, "selfsubjectaccessreviews", review); err != nil {
			return nil, err
		}
		if !review.Status.Allowed {
			denied = append(denied, Denied{Access: a, Reason: review.Status.Reason})
		}
	}
	return denied, nil
}

func (a Access) grantedBy(r authorization.ResourceRule) bool {
	has := func(list []string, v string) bool { return slices.Contains(list, "*") || slices.Contains(list, v) }
	return has(r.Verbs, a.Verb) && has(r.APIGroups, a.Group) && has(r.Resources, a.Resource) &&
		(len(r.ResourceNames) == 0 || a.Name != "" && slices.Contains(r.ResourceNames, a.Name))
}

// review posts a self review and reads the answer into it.
func (c *Cluster) review(ctx context.Context, resource string, review any) error {
	data, err := json.Marshal(review)
	if err != nil {
		return err
	}
	result := c.rest.Post().AbsPath("apis", "authorization.k8s.io", "v1", resource).Body(data).MaxRetries(retriesAfter).Do(ctx)
	raw, err := result.Raw()
	if err != nil {
		return fault.Request{}.Classify(err)
	}
	return json.Unmarshal(raw, review)
}
