// Package v1alpha1 holds the resources that people write and read: Environment, Release and ReleasePolicy.
//
// +kubebuilder:object:generate=true
// +groupName=nexus.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion of every resource of ours.
var GroupVersion = schema.GroupVersion{Group: "nexus.dev", Version: "v1alpha1"}

// AddToScheme makes the resources known to s.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &Environment{}, &EnvironmentList{}, &Release{}, &ReleaseList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
