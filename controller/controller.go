package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/gitsource"
	"github.com/nexus-platform/reconciler/journal"
	"github.com/nexus-platform/reconciler/reconcile"
)

// Controller runs one reconciler per Environment. The environment is a key of the queue,
// its interval the time-out, and everything that may change what is to be done a bell that carries no data.
type Controller struct {
	Client   client.Client
	Recorder events.EventRecorder
	Assembly *Assembly
	Workers  int // environments that are worked on at the same time
	Log      *slog.Logger
	Now      func() time.Time

	bell    chan event.GenericEvent
	mu      sync.Mutex
	running map[types.NamespacedName]*running
}

// running is one environment at work.
type running struct {
	*Assembled
	generation int64
	projection *projection
	stop       context.CancelFunc
	done       chan struct{}
	faults     *backoff.ExponentialBackOff
	noted      string // the fault that was told last, so that it is told once
	answer     answer
}

// answer is what became of the request that was carried out last. It is kept until
// the status has it, which may take more than one try.
type answer struct{ request, text, release string }

// Register adds the controller to a manager.
func (c *Controller) Register(mgr ctrl.Manager) error {
	c.bell = make(chan event.GenericEvent, 1024)
	c.running = map[types.NamespacedName]*running{}
	return ctrl.NewControllerManagedBy(mgr).
		Named("environment").
		For(&v1alpha1.Environment{}).
		WatchesRawSource(source.Channel(c.bell, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: c.Workers}).
		Complete(c)
}

// Ring brings an environment to the front without waiting for its interval.
func (c *Controller) ring(key types.NamespacedName) {
	select {
	case c.bell <- event.GenericEvent{Object: &v1alpha1.Environment{ObjectMeta: metav1.ObjectMeta{Name: key.Name, Namespace: key.Namespace}}}:
	default: // the queue is full of bells: the interval brings the environment back
	}
}

// Reconcile makes one pass over one environment.
func (c *Controller) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var env v1alpha1.Environment
	if err := c.Client.Get(ctx, req.NamespacedName, &env); err != nil {
		if apierrors.IsNotFound(err) {
			c.drop(req.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, err
	}
	if !env.DeletionTimestamp.IsZero() {
		return c.goodbye(ctx, &env)
	}
	if controllerutil.AddFinalizer(&env, v1alpha1.Finalizer) {
		if err := c.Client.Update(ctx, &env); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
	}
	run, err := c.start(ctx, &env)
	if err != nil {
		return c.misconfigured(ctx, &env, err)
	}
	ask, err := request(&env)
	if err != nil {
		return c.misconfigured(ctx, &env, err)
	}
	run.projection.begun()
	began := c.Now()
	res, err := run.Pass(ctx, ask)
	took := c.Now().Sub(began)
	if release := run.projection.begun(); res.Request != "" {
		if release == "" && res.Number > 0 {
			release = fmt.Sprintf("%s-%d", env.Name, res.Number)
		}
		run.answer = answer{request: res.Request, text: res.Answer, release: release}
	}
	run.projection.settle(ctx, res.Head)
	if ctx.Err() != nil { // SIGTERM: the release stays open, and start-up resumes it
		return ctrl.Result{}, nil //nolint:nilerr // it is no fault of the environment's
	}
	return c.after(ctx, &env, run, res, took, err)
}

// request reads what a person asks for, unless it was carried out.
func request(env *v1alpha1.Environment) (reconcile.Ask, error) {
	ask := reconcile.Ask{Suspended: env.Spec.Suspend}
	text := env.Annotations[v1alpha1.RequestAnnotation]
	if text == "" {
		return ask, nil
	}
	var q v1alpha1.Request
	if err := json.Unmarshal([]byte(text), &q); err != nil || q.ID == "" {
		return ask, &ConfigError{Field: "annotation " + v1alpha1.RequestAnnotation, Err: errors.New("is not a request: remove it, and use the command line")}
	}
	if q.ID != env.Status.HandledRequest {
		ask.Request = &q
	}
	return ask, nil
}

// start returns the environment's reconciler, made anew when its spec changed or its credentials are old.
func (c *Controller) start(ctx context.Context, env *v1alpha1.Environment) (*running, error) {
	key := client.ObjectKeyFromObject(env)
	c.mu.Lock()
	run := c.running[key]
	c.mu.Unlock()
	if run != nil && run.generation == env.Generation && run.Environment.UID == env.UID {
		return run, nil
	}
	if run != nil {
		c.drop(key)
	}
	env = env.DeepCopy()
	p := newProjection(c.Client, c.Recorder, c.Log, env)
	assembled, err := c.Assembly.Assemble(ctx, env, func() { c.ring(key) }, p.observe)
	if err != nil {
		return nil, err
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	run = &running{Assembled: assembled, generation: env.Generation, projection: p, stop: stop, done: make(chan struct{}), faults: backoff.NewExponentialBackOff()}
	run.faults.InitialInterval, run.faults.MaxInterval = 200*time.Millisecond, time.Minute
	go func() {
		defer close(run.done)
		p.run(life)
	}()
	c.mu.Lock()
	c.running[key] = run
	c.mu.Unlock()
	return run, nil
}

// drop ends the watches of an environment.
func (c *Controller) drop(key types.NamespacedName) {
	c.mu.Lock()
	run := c.running[key]
	delete(c.running, key)
	c.mu.Unlock()
	if run == nil {
		return
	}
	run.stop()
	<-run.done
	run.Close()
}

// Close ends every environment's watches.
func (c *Controller) Close() {
	c.mu.Lock()
	keys := make([]types.NamespacedName, 0, len(c.running))
	for key := range c.running {
		keys = append(keys, key)
	}
	c.mu.Unlock()
	for _, key := range keys {
		c.drop(key)
	}
}

// after shows what a pass found and says when the next one is due.
func (c *Controller) after(ctx context.Context, env *v1alpha1.Environment, run *running, res reconcile.Result, took time.Duration, err error) (ctrl.Result, error) {
	if serr := c.show(ctx, env, run, res, err); serr != nil && err == nil {
		return ctrl.Result{}, serr
	}
	c.note(env, run, res, err)
	c.Log.Debug("pass", "environment", env.Name, "namespace", env.Namespace, "tip", res.Tip, "why", res.Why, "took", took)
	interval := 15 * time.Second
	if env.Spec.Interval != nil {
		interval = env.Spec.Interval.Duration
	}
	var denied *gitsource.AuthError
	if errors.As(res.TipErr, &denied) {
		c.Assembly.renew(ctx, run.Assembled)
	}
	if err != nil || res.TipErr != nil {
		wait := run.faults.NextBackOff()
		if err == nil {
			wait = max(wait, interval)
		}
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	run.faults.Reset()
	if res.After > 0 && res.After < interval {
		return ctrl.Result{RequeueAfter: max(res.After, time.Millisecond)}, nil
	}
	return ctrl.Result{RequeueAfter: interval}, nil
}

// note logs and tells a fault once, not at every pass.
func (c *Controller) note(env *v1alpha1.Environment, run *running, res reconcile.Result, err error) {
	if err == nil {
		err = res.TipErr
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == run.noted {
		return
	}
	run.noted = text
	if text == "" {
		c.Log.Info("recovered", "environment", env.Name, "namespace", env.Namespace)
		return
	}
	c.Log.Warn("pass", "environment", env.Name, "namespace", env.Namespace, "error", err)
	reason := "Waiting"
	var halted *reconcile.HaltedError
	switch {
	case errors.As(err, &halted):
		reason = "Halted"
	case res.TipErr != nil:
		reason = "SourceUnavailable"
	}
	c.Recorder.Eventf(env, nil, "Warning", reason, "Reconcile", "%s", truncate(text, 1000))
}

// misconfigured shows that an environment cannot work as it is written; one that is broken never slows another.
func (c *Controller) misconfigured(ctx context.Context, env *v1alpha1.Environment, err error) (ctrl.Result, error) {
	var config *ConfigError
	reason := "Unavailable"
	if errors.As(err, &config) {
		reason = "Misconfigured"
	}
	was := env.Status.DeepCopy()
	env.Status.ObservedGeneration = env.Generation
	setReady(&env.Status, metav1.ConditionFalse, reason, err.Error(), env.Generation)
	setStalled(&env.Status, config != nil, reason, err.Error(), env.Generation)
	if !equality.Semantic.DeepEqual(was, &env.Status) {
		c.Recorder.Eventf(env, nil, "Warning", reason, "Reconcile", "%s", truncate(err.Error(), 1000))
		if uerr := c.Client.Status().Update(ctx, env); uerr != nil {
			return ctrl.Result{}, client.IgnoreNotFound(uerr)
		}
	}
	return ctrl.Result{RequeueAfter: 30 * time.Second}, nil
}

// goodbye ends an environment: its objects are orphaned, or the empty set is released first.
func (c *Controller) goodbye(ctx context.Context, env *v1alpha1.Environment) (ctrl.Result, error) {
	key := client.ObjectKeyFromObject(env)
	if !controllerutil.ContainsFinalizer(env, v1alpha1.Finalizer) {
		c.drop(key)
		return ctrl.Result{}, nil
	}
	left, err := c.release(ctx, env)
	if err != nil {
		return ctrl.Result{}, err
	}
	if left > 0 {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	c.drop(key)
	controllerutil.RemoveFinalizer(env, v1alpha1.Finalizer)
	return ctrl.Result{}, client.IgnoreNotFound(c.Client.Update(ctx, env))
}

// release takes the objects of a deleted environment away, where it says so and its identity still may. A positive duration: not yet.
func (c *Controller) release(ctx context.Context, env *v1alpha1.Environment) (time.Duration, error) {
	if env.Spec.Prune != "onDelete" {
		if left, err := c.close(ctx, env); err != nil || left > 0 {
			return left, err
		}
		c.Recorder.Eventf(env, nil, "Normal", "Orphaned", "Delete", "the objects stay: spec.prune is orphan")
		return 0, c.Assembly.forget(ctx, env)
	}
	if why, err := c.powerless(ctx, env); err != nil || why != "" {
		if why != "" {
			c.Recorder.Eventf(env, nil, "Warning", "Orphaned", "Delete", "the objects stay: %s", why)
			err = c.Assembly.forget(ctx, env)
		}
		return 0, err
	}
	run, err := c.start(ctx, env)
	var config *ConfigError
	switch {
	case errors.As(err, &config):
		c.Recorder.Eventf(env, nil, "Warning", "Orphaned", "Delete", "the objects stay: %s", truncate(err.Error(), 900))
		return 0, c.Assembly.forget(ctx, env)
	case err != nil:
		return 0, err // of the world: tried again, so that what is to go is not left behind
	}
	res, err := run.Pass(ctx, reconcile.Ask{Remove: true})
	if err != nil {
		c.note(env, run, res, err)
		return run.faults.NextBackOff(), nil
	}
	if res.Removed {
		return 0, c.Assembly.forget(ctx, env)
	}
	return max(min(res.After, time.Second), 50*time.Millisecond), nil
}

// close takes an open release back, or finishes it, before its environment is let go. A positive duration: not yet.
func (c *Controller) close(ctx context.Context, env *v1alpha1.Environment) (time.Duration, error) {
	if why, err := c.powerless(ctx, env); err != nil || why != "" {
		return 0, err
	}
	run, err := c.start(ctx, env)
	var config *ConfigError
	if errors.As(err, &config) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	h, err := run.Journal.Head(ctx)
	if err != nil || h.State == journal.Idle || h.State == "" {
		return 0, nil //nolint:nilerr // a journal that cannot be read does not hold what stays as it is
	}
	res, err := run.Pass(ctx, reconcile.Ask{Remove: true}) // as long as a release is open, that ends it and begins nothing
	if err != nil {
		c.note(env, run, res, err)
		return run.faults.NextBackOff(), nil
	}
	return max(min(res.After, time.Second), 50*time.Millisecond), nil
}

// powerless says why the environment's identity can no longer delete anything, or nothing.
func (c *Controller) powerless(ctx context.Context, env *v1alpha1.Environment) (string, error) {
	terminating, account, err := c.identity(ctx, env)
	switch {
	case err != nil:
		return "", err
	case terminating:
		return "namespace " + env.Namespace + " is terminating", nil
	case !account:
		return fmt.Sprintf("service account %s/%s is gone", env.Namespace, env.Spec.ServiceAccountName), nil
	}
	return "", nil
}
