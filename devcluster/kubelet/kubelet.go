// Package kubelet plays the kubelets of a few nodes, and the volume provisioner, load balancer and ingress controller of
// a cluster that has none: it makes the API server believe that all this is there.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/nexus-platform/reconciler/devcluster/sim"
)

const (
	workers    = 8
	leaseEvery = 10 * time.Second // of the 40s after which a node counts as lost
)

// Kubelet is all kubelets of the cluster. Its fields are set before use.
type Kubelet struct {
	Client  kubernetes.Interface
	Nodes   int    // how many nodes there are: node-0, node-1, ...
	Version string // that the nodes report
	World   sim.World
}

// key names an object that is to be looked at.
type key struct{ kind, namespace, name string }

// runner is a Kubelet at work.
type runner struct {
	*Kubelet
	nodes  map[string]string // name: IP
	queue  workqueue.TypedRateLimitingInterface[key]
	events record.EventRecorder

	pods       corelisters.PodLister
	claims     corelisters.PersistentVolumeClaimLister
	volumes    corelisters.PersistentVolumeLister
	services   corelisters.ServiceLister
	ingresses  networkinglisters.IngressLister
	configMaps corelisters.ConfigMapLister
	secrets    corelisters.SecretLister

	mu    sync.Mutex
	lives map[key]*life
	ips   addresses
}

// Run plays until ctx ends.
func (k *Kubelet) Run(ctx context.Context) error {
	r := &runner{Kubelet: k, nodes: k.nodes(), lives: map[key]*life{}}
	r.queue = workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[key](20*time.Millisecond, 5*time.Second))
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: k.Client.CoreV1().Events("")})
	r.events = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "kubelet"})

	factory := informers.NewSharedInformerFactoryWithOptions(k.Client, 0, informers.WithTransform(strip))
	if err := r.watch(factory); err != nil {
		return fmt.Errorf("watch the cluster: %w", err)
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("read all %v: %w", kind, context.Cause(ctx))
		}
	}
	pods, err := r.pods.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("read all pods: %w", err)
	}
	for _, p := range pods {
		r.ips.used(p.Status.PodIP)
	}

	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for r.next(ctx) {
			}
		})
	}
	r.heartbeat(ctx)
	r.queue.ShutDown()
	wg.Wait()
	return context.Cause(ctx)
}

// watch sends everything that changes into the queue.
func (r *runner) watch(f informers.SharedInformerFactory) error {
	core, ingresses := f.Core().V1(), f.Networking().V1().Ingresses()
	r.pods, r.claims, r.volumes = core.Pods().Lister(), core.PersistentVolumeClaims().Lister(), core.PersistentVolumes().Lister()
	r.services, r.ingresses = core.Services().Lister(), ingresses.Lister()
	r.configMaps, r.secrets = core.ConfigMaps().Lister(), core.Secrets().Lister()
	enqueue := func(kind string) func(metav1.Object) {
		return func(o metav1.Object) { r.queue.Add(key{kind, o.GetNamespace(), o.GetName()}) }
	}
	var errs []error
	for informer, changed := range map[cache.SharedIndexInformer]func(metav1.Object){
		core.Pods().Informer():                   enqueue("pod"),
		core.PersistentVolumeClaims().Informer(): enqueue("claim"),
		core.PersistentVolumes().Informer():      enqueue("volume"),
		core.Services().Informer():               enqueue("service"),
		ingresses.Informer():                     enqueue("ingress"),
		core.ConfigMaps().Informer():             r.wake,
		core.Secrets().Informer():                r.wake,
	} {
		see := func(o any) {
			if m, ok := o.(metav1.Object); ok {
				changed(m)
			}
		}
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    see,
			UpdateFunc: func(_, o any) { see(o) },
			DeleteFunc: func(o any) {
				if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = gone.Obj
				}
				see(o)
			},
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// wake looks again at the pods that may have waited for a ConfigMap or Secret.
func (r *runner) wake(o metav1.Object) {
	pods, err := r.pods.Pods(o.GetNamespace()).List(labels.Everything())
	if err != nil {
		klog.Warningf("kubelet: list pods of %s: %v", o.GetNamespace(), err)
	}
	for _, p := range pods {
		if p.Status.Phase == corev1.PodPending {
			r.queue.Add(key{"pod", p.Namespace, p.Name})
		}
	}
}

// strip takes out of a cached object what nobody here reads: most of all the content of Secrets.
func strip(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	switch o := o.(type) {
	case *corev1.ConfigMap:
		for k := range o.Data {
			o.Data[k] = ""
		}
		for k := range o.BinaryData {
			o.BinaryData[k] = nil
		}
	case *corev1.Secret:
		for k := range o.Data {
			o.Data[k] = nil
		}
	}
	return o, nil
}

// next handles one object of the queue; false at the end.
func (r *runner) next(ctx context.Context) bool {
	k, quit := r.queue.Get()
	if quit {
		return false
	}
	defer r.queue.Done(k)
	again, err := r.look(ctx, k)
	if err != nil && !apierrors.IsNotFound(err) {
		if !apierrors.IsConflict(err) && ctx.Err() == nil {
			klog.Warningf("kubelet: %s %s/%s: %v", k.kind, k.namespace, k.name, err)
		}
		r.queue.AddRateLimited(k)
		return true
	}
	r.queue.Forget(k)
	if again > 0 {
		r.queue.AddAfter(k, again)
	}
	return true
}

// look does what is due for one object, and says when to look again (0: when it changes).
func (r *runner) look(ctx context.Context, k key) (time.Duration, error) {
	switch k.kind {
	case "pod":
		return r.pod(ctx, k)
	case "claim":
		return 0, r.claim(ctx, k)
	case "volume":
		return 0, r.volume(ctx, k)
	case "service":
		return 0, r.service(ctx, k)
	default:
		return 0, r.ingress(ctx, k)
	}
}

// heartbeat renews the nodes' leases until ctx ends.
func (r *runner) heartbeat(ctx context.Context) {
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := r.renew(ctx); err != nil && ctx.Err() == nil {
				klog.Warningf("kubelet: renew leases: %v", err)
			}
		}
	}
}
