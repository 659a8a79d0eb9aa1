package handler

import (
	"context"
	"log"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/kubelet"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/watch"
)

// workers is how many VMIs are attended to at a time.
const workers = 8

// Handlers play the virt-handlers of all nodes.
type Handlers struct {
	client client.WithWatch
	log    *log.Logger
	queue  workqueue.TypedRateLimitingInterface[types.NamespacedName]
	vmis   *watch.Store[*kubevirtv1.VirtualMachineInstance]

	mu      sync.Mutex
	nodes   map[string]*node
	courses map[types.NamespacedName]Course
	usual   Course // of VMIs without a course of their own
	boot    time.Duration
	crashes map[types.UID]bool
	runs    map[types.UID]*run // by the migration's UID
	booting map[types.UID]time.Time
}

// node is one node's virt-handler.
type node struct {
	client  client.WithWatch
	kubelet *kubelet.Kubelet
	ip      string
}

// run is one migration under way.
type run struct {
	vmi      types.NamespacedName
	target   string // the target launcher's node
	course   Course
	reached  Step // the step it is at
	since    time.Time
	released bool
}

// New makes handlers that watch with the given client, which has the rights of
// kubevirt-handler; they do nothing until Run.
func New(c client.WithWatch, log *log.Logger) *Handlers {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](10*time.Millisecond, time.Second)
	return &Handlers{
		client: c, log: log,
		queue:   workqueue.NewTypedRateLimitingQueue(limiter),
		nodes:   map[string]*node{},
		courses: map[types.NamespacedName]Course{},
		crashes: map[types.UID]bool{},
		runs:    map[types.UID]*run{},
		booting: map[types.UID]time.Time{},
	}
}

// Run plays until ctx ends, when the returned channel is closed.
func (h *Handlers) Run(ctx context.Context) (done <-chan struct{}, err error) {
	h.vmis, err = watch.Start(ctx, h.client, "", &kubevirtv1.VirtualMachineInstance{}, &kubevirtv1.VirtualMachineInstanceList{},
		func(vmi *kubevirtv1.VirtualMachineInstance) { h.queue.Add(client.ObjectKeyFromObject(vmi)) })
	if err != nil {
		return nil, err
	}
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for h.work(ctx) {
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		h.queue.ShutDown()
		group.Wait()
	}()
	return ended, nil
}

func (h *Handlers) work(ctx context.Context) bool {
	key, quit := h.queue.Get()
	if quit {
		return false
	}
	defer h.queue.Done(key)
	vmi, ok := h.vmis.Get(key)
	if !ok {
		return true
	}
	again, err := h.sync(ctx, vmi)
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		// The watch will show what it is about; but in case it already has:
		h.queue.AddRateLimited(key)
	case err != nil:
		if ctx.Err() == nil {
			h.log.Printf("virt-handler: VMI %s: %v", key, err)
		}
		h.queue.AddRateLimited(key)
	default:
		h.queue.Forget(key)
		if again > 0 {
			h.queue.AddAfter(key, again)
		}
	}
	return true
}

// AddNode adds a node's virt-handler: c has the rights of kubevirt-handler on
// that node.
func (h *Handlers) AddNode(name, ip string, c client.WithWatch, k *kubelet.Kubelet) {
	h.mu.Lock()
	h.nodes[name] = &node{client: c, kubelet: k, ip: ip}
	h.mu.Unlock()
	h.Wake()
}

// Wake makes the handlers look at all VMIs again.
func (h *Handlers) Wake() {
	for _, vmi := range h.vmis.List() {
		h.queue.Add(client.ObjectKeyFromObject(vmi))
	}
}

// node is a node's handler; nil if there is none, or none that lives.
func (h *Handlers) node(name string) *node {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.nodes[name]
	if n == nil || n.kubelet.Dead() {
		return nil
	}
	return n
}

// SetCourse is what happens in the next migrations of a VMI.
func (h *Handlers) SetCourse(vmi types.NamespacedName, course Course) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.courses[vmi] = course
	return course.Validate()
}

// SetUsualCourse is what happens in migrations of VMIs without their own.
func (h *Handlers) SetUsualCourse(course Course) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.usual = course
	return course.Validate()
}

// SetBootTime is how long VMs take to start.
func (h *Handlers) SetBootTime(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.boot = d
}

// Release lets a migration of the VMI go on that hangs, or would come to hang,
// at its course's HoldAt.
func (h *Handlers) Release(vmi types.NamespacedName) {
	h.mu.Lock()
	var targets []*node
	for _, r := range h.runs {
		if r.vmi == vmi {
			r.released = true
			if n := h.nodes[r.target]; n != nil {
				targets = append(targets, n)
			}
		}
	}
	h.mu.Unlock()
	h.queue.Add(vmi)
	for _, n := range targets { // a launcher may be waiting
		n.kubelet.Wake()
	}
}

// At is the step before which a migration is (or the last, if it is over).
func (h *Handlers) At(migration types.UID) Step {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.runs[migration]; r != nil {
		return r.reached
	}
	return NoStep
}

// Crash makes a running VM die.
func (h *Handlers) Crash(vmi *kubevirtv1.VirtualMachineInstance) {
	h.mu.Lock()
	h.crashes[vmi.UID] = true
	h.mu.Unlock()
	h.queue.Add(client.ObjectKeyFromObject(vmi))
}

// run finds or begins the run of a migration; its course is fixed by then.
func (h *Handlers) run(migration types.UID, vmi types.NamespacedName) *run {
	r := h.runs[migration]
	if r == nil {
		course, own := h.courses[vmi]
		if !own {
			course = h.usual
		}
		r = &run{vmi: vmi, course: course}
		h.runs[migration] = r
	}
	return r
}

// gate tells whether a migration may take a step now; if not, wait is how long
// its time is, or 0 if it hangs.
func (h *Handlers) gate(migration types.UID, vmi types.NamespacedName, step Step) (course Course, open bool, wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.run(migration, vmi)
	if r.reached != step {
		r.reached, r.since = step, time.Now()
	}
	if r.course.HoldAt == step && !r.released {
		return r.course, false, 0
	}
	wait = time.Until(r.since.Add(r.course.Takes[step]))
	return r.course, wait <= 0, max(wait, 0)
}

// Admit decides when a launcher pod becomes ready: that of a migration's
// target is the step Launch.
func (h *Handlers) Admit(pod *corev1.Pod) kubelet.Verdict {
	migration := types.UID(pod.Labels[kubevirtv1.MigrationJobLabel])
	if migration == "" || pod.Labels[kubevirtv1.AppLabel] != "virt-launcher" {
		return kubelet.Run
	}
	vmi := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Annotations[kubevirtv1.DomainAnnotation]}
	course, open, wait := h.gate(migration, vmi, Launch)
	h.mu.Lock()
	h.runs[migration].target = pod.Spec.NodeName
	n := h.nodes[pod.Spec.NodeName]
	h.mu.Unlock()
	switch {
	case !open:
		if wait > 0 && n != nil {
			time.AfterFunc(wait, n.kubelet.Wake)
		}
		return kubelet.Wait
	case course.FailAt == Launch:
		return kubelet.Fail
	}
	return kubelet.Run
}
