package kube

import (
	"github.com/nexus-platform/reconciler/object"
)

// Live finds an object with our label in the watch cache. It sends nothing.
func (c *Cluster) Live(r object.Ref) (*Live, bool) { return c.cache.Live(r) }

// Unlabelled reports that an object of ours is still there but somebody took our label off: Live does not find it, Read does.
func (c *Cluster) Unlabelled(r object.Ref) bool { return c.cache.Unlabelled(r) }

// Owned lists, in order, every object of the watched kinds that carries our label.
func (c *Cluster) Owned() []object.Ref { return c.cache.Owned() }
