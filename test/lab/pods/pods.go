package pods

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/kubelet"
)

// Program stands for an image.
type Program struct {
	// Path is the executable's, whatever a container's command begins with.
	Path string
	// Args are added last. $(VAR)s in them are the container's, $(KUBECONFIG), and
	// $(LAB_POD_IP), the pod's address; paths in them are the machine's.
	Args []string
}

// Options say which pods are run.
type Options struct {
	// Play, if set, names the pods that kubelets only play, as they play all pods of
	// a lab without a Runtime.
	Play func(*corev1.Pod) bool
}

// Runtime runs the pods of all kubelets of a lab. It implements kubelet.Runtime.
type Runtime struct {
	opts   Options
	server *rest.Config
	dir    string // of the lab
	life   context.Context
	end    context.CancelFunc

	mu       sync.Mutex
	programs map[string]Program // by image
	pods     map[types.UID]*running
	ips      map[string]bool
}

// running is a pod that was started.
type running struct {
	sandbox    sandbox
	containers []*container
	cancel     context.CancelFunc
	ended      chan struct{}
}

// New makes a Runtime, whose files are below dir: pods, hosts and logs. Only the
// address of server is used.
func New(dir string, server *rest.Config, opts Options) *Runtime {
	r := &Runtime{opts: opts, server: server, dir: dir, programs: map[string]Program{}, pods: map[types.UID]*running{}, ips: map[string]bool{}}
	r.life, r.end = context.WithCancel(context.Background())
	return r
}

// Add lets a program stand for an image, as containers name it. Until then pods with
// that image wait (ErrImagePull).
func (r *Runtime) Add(image string, program Program) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.programs[image] = program
}

func (r *Runtime) program(image string) (Program, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	program, ok := r.programs[image]
	if !ok {
		return program, fmt.Errorf("%w: %s", errImage, image)
	}
	return program, nil
}

// Runs implements kubelet.Runtime.
func (r *Runtime) Runs(pod *corev1.Pod) bool { return r.opts.Play == nil || !r.opts.Play(pod) }

// Sync implements kubelet.Runtime: it starts the pod's containers unless they were.
func (r *Runtime) Sync(ctx context.Context, pod *corev1.Pod, host kubelet.Host) (kubelet.Observed, error) {
	r.mu.Lock()
	p := r.pods[pod.UID]
	r.mu.Unlock()
	if p == nil {
		var err error
		if p, err = r.start(ctx, pod, host); err != nil {
			return kubelet.Observed{Containers: waiting(pod, err)}, err
		}
	}
	observed := kubelet.Observed{PodIP: p.sandbox.ip}
	for _, c := range p.containers {
		observed.Containers = append(observed.Containers, c.status())
	}
	return observed, nil
}

// errImage: no program stands for an image.
var errImage = errors.New("no program of the lab stands for this image")

// start makes the pod's volumes and starts its containers.
func (r *Runtime) start(ctx context.Context, pod *corev1.Pod, host kubelet.Host) (*running, error) {
	if err := supported(pod); err != nil {
		return nil, err
	}
	p := &running{ended: make(chan struct{}), sandbox: sandbox{
		pod: pod, client: host.Client, node: host.Node, hostIP: host.IP, ip: r.takeIP(),
		dir: filepath.Join(r.dir, "pods", string(pod.UID)[:8]), host: filepath.Join(r.dir, "hosts", host.Node),
	}}
	containers, err := r.containers(ctx, p, host.Changed)
	if err != nil {
		r.forget(p)
		return nil, err
	}
	p.containers = containers
	life, cancel := context.WithCancel(r.life)
	p.cancel = cancel
	r.mu.Lock()
	r.pods[pod.UID] = p
	r.mu.Unlock()
	var group sync.WaitGroup
	for _, c := range containers {
		group.Go(func() { c.run(life) })
	}
	go func() {
		group.Wait()
		close(p.ended)
		host.Changed()
	}()
	return p, nil
}

// supported refuses what would turn out otherwise than the manifest says.
func supported(pod *corev1.Pod) error {
	switch {
	case len(pod.Spec.InitContainers) > 0:
		return errors.New("init containers are not supported here")
	case pod.Spec.RestartPolicy != corev1.RestartPolicyAlways:
		return fmt.Errorf("restart policy %s is not supported here", pod.Spec.RestartPolicy)
	}
	return nil
}

func (r *Runtime) containers(ctx context.Context, p *running, changed func()) ([]*container, error) {
	s := &p.sandbox
	if err := errors.Join(s.makeDir(), os.MkdirAll(filepath.Join(r.dir, "logs"), 0o755)); err != nil {
		return nil, err
	}
	volumes, err := s.volumes(ctx)
	if err != nil {
		return nil, err
	}
	var all []*container
	for i := range s.pod.Spec.Containers {
		spec := &s.pod.Spec.Containers[i]
		program, err := r.program(spec.Image)
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", spec.Name, err)
		}
		c := &container{name: spec.Name, image: spec.Image, life: r.life, changed: changed, grace: 30 * time.Second}
		if seconds := s.pod.Spec.TerminationGracePeriodSeconds; seconds != nil {
			c.grace = time.Duration(*seconds) * time.Second
		}
		c.state.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
		if c.spec, err = s.spec(ctx, spec, program, r.server, volumes); err != nil {
			return nil, fmt.Errorf("container %s: %w", spec.Name, err)
		}
		c.spec.Log = r.LogFile(s.pod, spec.Name)
		if err := c.addProbes(spec, s.ip, newMounts(spec, volumes)); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func (c *container) addProbes(spec *corev1.Container, ip string, m mounts) error {
	var errs [3]error
	c.startup, errs[0] = newProbe(spec.StartupProbe, spec, ip, m, false)
	c.readiness, errs[1] = newProbe(spec.ReadinessProbe, spec, ip, m, true)
	c.liveness, errs[2] = newProbe(spec.LivenessProbe, spec, ip, m, false)
	return errors.Join(errs[:]...)
}

// waiting are the containers of a pod that cannot be started.
func waiting(pod *corev1.Pod, err error) []corev1.ContainerStatus {
	reason := "CreateContainerConfigError"
	if errors.Is(err, errImage) {
		reason = "ErrImagePull"
	}
	var all []corev1.ContainerStatus
	for _, c := range pod.Spec.Containers {
		all = append(all, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Started: new(bool),
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: err.Error()}},
		})
	}
	return all
}

// Stop implements kubelet.Runtime: it tells whether all has ended, and asks for it.
func (r *Runtime) Stop(pod types.UID) bool {
	r.mu.Lock()
	p := r.pods[pod]
	r.mu.Unlock()
	if p == nil {
		return true
	}
	p.cancel()
	select {
	case <-p.ended:
	default:
		return false
	}
	r.forget(p)
	return true
}

// forget removes what is left of a pod that does not run.
func (r *Runtime) forget(p *running) {
	r.mu.Lock()
	delete(r.pods, p.sandbox.pod.UID)
	delete(r.ips, p.sandbox.ip)
	r.mu.Unlock()
	_ = os.RemoveAll(p.sandbox.dir) // the lab's folder goes at its end
}

// Close kills everything at once.
func (r *Runtime) Close() {
	r.end()
	r.mu.Lock()
	all := make([]*running, 0, len(r.pods))
	for _, p := range r.pods {
		all = append(all, p)
	}
	r.mu.Unlock()
	for _, p := range all {
		<-p.ended
	}
}

// LogFile is where a container of a pod logs to.
func (r *Runtime) LogFile(pod *corev1.Pod, container string) string {
	return filepath.Join(r.dir, "logs", pod.Namespace+"_"+pod.Name+"_"+container+".log")
}

// takeIP chooses an address of the loopback network that no other pod here has; with
// other labs on the machine chance keeps them apart.
func (r *Runtime) takeIP() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		ip := fmt.Sprintf("127.%d.%d.%d", 2+rand.IntN(250), rand.IntN(256), 1+rand.IntN(254))
		if !r.ips[ip] {
			r.ips[ip] = true
			return ip
		}
	}
}

// same compares what the API would show.
func same(a, b corev1.ContainerStatus) bool { return equality.Semantic.DeepEqual(a, b) }

var _ kubelet.Runtime = (*Runtime)(nil)
