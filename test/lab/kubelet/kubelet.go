package kubelet

import (
	"context"
	"log"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/watch"
)

// Behaviour is how a kubelet behaves; the zero value is a good one.
type Behaviour struct {
	// MountDelay and UnmountDelay make mounting and unmounting slow.
	MountDelay, UnmountDelay time.Duration
	// NeverMount, NeverUnmount and NeverReady make it get stuck there.
	NeverMount, NeverUnmount, NeverReady bool
	// Dead makes it do and write nothing, as a machine without power.
	Dead bool
}

// Verdict says what becomes of a pod whose volumes are mounted.
type Verdict int

// The verdicts.
const (
	Run  Verdict = iota // it becomes ready
	Wait                // not yet; ask again after Wake
	Fail                // its main process fails
)

// Options make a Kubelet.
type Options struct {
	Name string
	// Client has the rights of this node.
	Client client.WithWatch
	// Drivers are the CSI drivers registered here.
	Drivers []string
	Labels  map[string]string
	// Taints are the node's from its registration on.
	Taints []corev1.Taint
	// Index makes the node's addresses different from other nodes'.
	Index int
	// Admit, if set, is asked before a pod becomes ready.
	Admit func(*corev1.Pod) Verdict
	// Runtime, if set, runs pods for real.
	Runtime Runtime
	Log     *log.Logger
}

// Kubelet plays one node's kubelet.
type Kubelet struct {
	opts Options
	wake chan struct{}
	pods *watch.Store[*corev1.Pod]
	node *watch.Store[*corev1.Node]

	mu        sync.Mutex
	behaviour Behaviour
	exits     map[types.UID]bool // what Exit asked for: failed?

	// Only the loop's own from here on.
	states map[types.UID]*podState
	inUse  []corev1.UniqueVolumeName // as last written
}

// podState is what the kubelet remembers of one pod.
type podState struct {
	key      types.NamespacedName
	volumes  []corev1.UniqueVolumeName
	resolved bool
	held     bool // volumes count as in use
	mounted  bool
	due      time.Time // when the mount or unmount under way is done
}

// New makes a kubelet, which does nothing until Run.
func New(opts Options) *Kubelet {
	return &Kubelet{
		opts:   opts,
		wake:   make(chan struct{}, 1),
		exits:  map[types.UID]bool{},
		states: map[types.UID]*podState{},
	}
}

// Name is the node's.
func (k *Kubelet) Name() string { return k.opts.Name }

// Run registers the node and returns; the kubelet then works until ctx ends,
// when the returned channel is closed.
func (k *Kubelet) Run(ctx context.Context) (done <-chan struct{}, err error) {
	if err := k.register(ctx); err != nil {
		return nil, err
	}
	wakePod := func(*corev1.Pod) { k.Wake() }
	k.pods, err = watch.Start(ctx, k.opts.Client, "spec.nodeName="+k.opts.Name, &corev1.Pod{}, &corev1.PodList{}, wakePod)
	if err != nil {
		return nil, err
	}
	wakeNode := func(*corev1.Node) { k.Wake() }
	k.node, err = watch.Start(ctx, k.opts.Client, "metadata.name="+k.opts.Name, &corev1.Node{}, &corev1.NodeList{}, wakeNode)
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		k.loop(ctx)
	}()
	return ended, nil
}

// Wake makes the kubelet look at everything again.
func (k *Kubelet) Wake() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Behave changes the kubelet's behaviour.
func (k *Kubelet) Behave(change func(*Behaviour)) {
	k.mu.Lock()
	change(&k.behaviour)
	k.mu.Unlock()
	k.Wake()
}

// Dead tells whether the machine is without power.
func (k *Kubelet) Dead() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.behaviour.Dead
}

// Exit ends a pod's main process, well or with a failure.
func (k *Kubelet) Exit(pod types.UID, failed bool) {
	k.mu.Lock()
	if _, asked := k.exits[pod]; !asked {
		k.exits[pod] = failed
	}
	k.mu.Unlock()
	k.Wake()
}

// Pods are the pods bound to this node, as the kubelet sees them.
func (k *Kubelet) Pods() []*corev1.Pod { return k.pods.List() }

func (k *Kubelet) loop(ctx context.Context) {
	for {
		again := k.sync(ctx)
		var timer <-chan time.Time
		if again > 0 {
			timer = time.After(again)
		}
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-timer:
		}
	}
}

// retryAfter is the pause after a failed request.
const retryAfter = 50 * time.Millisecond

// sync does what can be done now and returns when there is more to do; 0 is
// "when something changes".
func (k *Kubelet) sync(ctx context.Context) time.Duration {
	k.mu.Lock()
	b := k.behaviour
	k.mu.Unlock()
	if b.Dead {
		return 0
	}
	again := soonest{}
	present := map[types.UID]bool{}
	for _, pod := range k.pods.List() {
		present[pod.UID] = true
		wait, err := k.syncPod(ctx, pod, b)
		again.in(wait)
		if err != nil && ctx.Err() == nil {
			k.opts.Log.Printf("kubelet %s: pod %s/%s: %v", k.opts.Name, pod.Namespace, pod.Name, err)
			again.in(retryAfter)
		}
	}
	k.forget(present)
	if err := k.publishInUse(ctx); err != nil && ctx.Err() == nil {
		k.opts.Log.Printf("kubelet %s: volumes in use: %v", k.opts.Name, err)
		again.in(retryAfter)
	}
	return again.wait
}

// forget drops pods that are gone. A pod deleted by force leaves its mounts,
// which are then undone like any other's.
func (k *Kubelet) forget(present map[types.UID]bool) {
	for uid, state := range k.states {
		if present[uid] {
			continue
		}
		k.mu.Lock()
		stuck := k.behaviour.NeverUnmount
		delete(k.exits, uid)
		k.mu.Unlock()
		if k.opts.Runtime != nil && !k.opts.Runtime.Stop(uid) {
			continue // it wakes us
		}
		if !state.held || !stuck {
			delete(k.states, uid)
		}
	}
}

// soonest is the shortest positive wait it was told of.
type soonest struct{ wait time.Duration }

func (s *soonest) in(d time.Duration) {
	if d > 0 && (s.wait == 0 || d < s.wait) {
		s.wait = d
	}
}
