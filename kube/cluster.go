// Package kube is the only one that changes the objects of a cluster: it compares, applies, deletes and watches them, one at a time.
//
// It decides nothing: it neither waits for an object to become healthy nor knows
// what a release is. Every write carries the preconditions that the caller planned
// with, and every answer is a value or a typed error that says what happened.
package kube

import (
	"fmt"
	"net/http"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/nexus-platform/reconciler/kube/cache"
	"github.com/nexus-platform/reconciler/object"
)

// Cluster is one target cluster as the service account of one environment sees it.
// The exported fields are set before Open; its methods may be called from any goroutine.
type Cluster struct {
	// Config reaches the API server; it impersonates already (see Impersonate).
	Config *rest.Config
	// Environment is the value of the label object.EnvironmentLabel on what is ours.
	Environment types.UID
	// Namespaces are those in scope; empty: all of them.
	Namespaces []string
	// Changed is told of an object that changed in the watch cache, or whose pods did;
	// the zero Ref means any. It must not block, and may be nil.
	Changed func(object.Ref)

	http      *http.Client
	rest      rest.Interface
	dynamic   *dynamic.DynamicClient
	discovery *discovery.DiscoveryClient
	kinds     kinds
	cache     *cache.Cache

	mu      sync.Mutex
	watches map[cache.Scope]*watch
	closed  bool
	running sync.WaitGroup
}

// Open builds the clients. It sends nothing.
func (c *Cluster) Open() error {
	config := dynamic.ConfigFor(c.Config)
	config.WarningHandler = rest.NoWarnings{}
	config.QPS = -1 // the API server's priority and fairness is the one throttle
	config.GroupVersion = &schema.GroupVersion{}
	config.APIPath = "/"
	var err error
	if c.http, err = rest.HTTPClientFor(config); err != nil {
		return fmt.Errorf("set up the connection to %s: %w", config.Host, err)
	}
	if c.rest, err = rest.UnversionedRESTClientForConfigAndClient(config, c.http); err != nil {
		return fmt.Errorf("set up the client of %s: %w", config.Host, err)
	}
	c.dynamic = dynamic.New(c.rest)
	if c.discovery, err = discovery.NewDiscoveryClientForConfigAndClient(config, c.http); err != nil {
		return fmt.Errorf("set up discovery of %s: %w", config.Host, err)
	}
	c.watches = map[cache.Scope]*watch{}
	c.cache = cache.New(c.Environment)
	return nil
}

// Close ends all watches and returns when they have ended.
func (c *Cluster) Close() {
	c.mu.Lock()
	c.closed = true
	for _, w := range c.watches {
		w.cancel()
	}
	c.mu.Unlock()
	c.running.Wait()
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

func (c *Cluster) changed(refs ...object.Ref) {
	if c.Changed == nil {
		return
	}
	for _, r := range refs {
		c.Changed(r)
	}
}

// Impersonate returns a copy of config that acts as a service account.
func Impersonate(config *rest.Config, namespace, serviceAccount string) *rest.Config {
	as := rest.CopyConfig(config)
	// Without groups: the API server then gives the account those that it has, and the right to
	// impersonate this one account is enough. Naming groups would need the right to impersonate them, everywhere.
	as.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + namespace + ":" + serviceAccount}
	return as
}
