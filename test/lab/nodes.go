package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubevirtv1 "kubevirt.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/handler"
	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/kubelet"
)

// Driver is the CSI driver that nodes register and volumes name.
const Driver = "rds.csi.srvlab.io"

// heartbeatEvery is how often a node's virt-handler shows that it lives.
const heartbeatEvery = 30 * time.Second

// Node is one node of the lab.
type Node struct {
	Name    string
	Kubelet *kubelet.Kubelet

	cluster *Cluster
	index   int
	taints  []corev1.Taint // from its registration on
	dead    chan bool      // tells the heartbeat; kept to the last value
}

// Behaviour is how a node's kubelet behaves.
type Behaviour = kubelet.Behaviour

// NodeOption changes a node that is being added.
type NodeOption func(*kubelet.Options)

// WithLabels adds labels to the node.
func WithLabels(labels map[string]string) NodeOption {
	return func(o *kubelet.Options) { o.Labels = labels }
}

// WithDrivers replaces the CSI drivers the node has registered.
func WithDrivers(drivers ...string) NodeOption {
	return func(o *kubelet.Options) { o.Drivers = drivers }
}

// WithTaints keeps pods away that do not tolerate them.
func WithTaints(taints ...corev1.Taint) NodeOption {
	return func(o *kubelet.Options) { o.Taints = taints }
}

// AddNode adds a node with a kubelet and, if there is KubeVirt, a virt-handler.
func (c *Cluster) AddNode(ctx context.Context, name string, options ...NodeOption) (*Node, error) {
	node, err := c.addNode(ctx, name, options)
	if err != nil {
		return nil, fmt.Errorf("adding node %s: %w", name, err)
	}
	return node, nil
}

func (c *Cluster) addNode(ctx context.Context, name string, options []NodeOption) (*Node, error) {
	config, err := c.ConfigForUser("system:node:"+name, "system:nodes")
	if err != nil {
		return nil, err
	}
	own, err := c.clientFor(config)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	node := &Node{Name: name, cluster: c, index: c.added}
	c.added++
	c.mu.Unlock()
	o := kubelet.Options{
		Name: name, Client: own, Index: node.index, Log: c.playersLog,
		Drivers: []string{Driver}, Admit: c.admit,
	}
	if c.pods != nil {
		o.Runtime = c.pods
	}
	for _, option := range options {
		option(&o)
	}
	node.Kubelet, node.taints = kubelet.New(o), o.Taints
	if err := c.play(node.Kubelet.Run); err != nil {
		return nil, err
	}
	// As the node lifecycle controller does for a node that is ready.
	if err := node.taint(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.nodes[name] = node
	handlers := c.handlers
	c.mu.Unlock()
	if handlers == nil {
		return node, nil
	}
	return node, c.addHandler(ctx, node)
}

// play runs a player for as long as the cluster lives.
func (c *Cluster) play(run func(context.Context) (<-chan struct{}, error)) error {
	c.players.Add(1)
	done, err := run(c.life)
	if err != nil {
		c.players.Done()
		return err
	}
	go func() {
		<-done
		c.players.Done()
	}()
	return nil
}

func (c *Cluster) startScheduler() error {
	config, err := c.ConfigForUser("system:kube-scheduler")
	if err != nil {
		return err
	}
	own, err := c.clientFor(config)
	if err != nil {
		return err
	}
	return c.play(kubelet.NewScheduler(own, c.playersLog).Run)
}

// admit is asked by every kubelet before a pod becomes ready.
func (c *Cluster) admit(pod *corev1.Pod) kubelet.Verdict {
	if h := c.Handlers(); h != nil {
		return h.Admit(pod)
	}
	return kubelet.Run
}

// Handlers play the nodes' virt-handlers; nil without KubeVirt.
func (c *Cluster) Handlers() *handler.Handlers {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handlers
}

// addHandler gives a node its virt-handler, which labels it and keeps showing
// that it lives.
func (c *Cluster) addHandler(ctx context.Context, n *Node) error {
	config, err := c.ConfigFor(ctx, KubeVirtNamespace, "kubevirt-handler", n.Name)
	if err != nil {
		return err
	}
	own, err := c.clientFor(config)
	if err != nil {
		return err
	}
	c.mu.Lock()
	n.dead = make(chan bool, 1)
	c.mu.Unlock()
	if err := beat(ctx, own, n.Name); err != nil {
		return fmt.Errorf("virt-handler of %s: %w", n.Name, err)
	}
	c.Handlers().AddNode(n.Name, fmt.Sprintf("198.19.255.%d", 1+n.index%250), own, n.Kubelet)
	c.players.Go(func() { c.keepBeating(own, n) })
	return nil
}

func (c *Cluster) keepBeating(own client.Client, n *Node) {
	ticks := time.NewTicker(heartbeatEvery)
	defer ticks.Stop()
	dead := false
	for {
		select {
		case <-c.life.Done():
			return
		case dead = <-n.dead:
		case <-ticks.C:
		}
		if dead {
			continue
		}
		if err := beat(c.life, own, n.Name); err != nil && c.life.Err() == nil {
			c.playersLog.Printf("virt-handler %s: heartbeat: %v", n.Name, err)
		}
	}
}

// beat writes what virt-handler's heartbeat and node labeller write, as far as
// it decides where VMs go.
func beat(ctx context.Context, own client.Client, name string) error {
	now := time.Now().UTC().Format(time.RFC3339)
	labels := map[string]string{}
	for _, label := range []string{
		kubevirtv1.NodeSchedulable, kubevirtv1.CPUModelLabel + "Lab", kubevirtv1.HostModelCPULabel + "Lab",
		kubevirtv1.SupportedHostModelMigrationCPU + "Lab", kubevirtv1.SupportedMachineTypeLabel + "q35",
	} {
		labels[label] = "true"
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"labels": labels, "annotations": map[string]string{kubevirtv1.VirtHandlerHeartbeat: now},
	}})
	if err != nil {
		return err
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	return own.Patch(ctx, node, client.RawPatch(types.StrategicMergePatchType, patch))
}

// Node finds a node by name; nil if there is none.
func (c *Cluster) Node(name string) *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[name]
}

// Remove takes the node, and its CSINode, out of the cluster; it does nothing more.
func (n *Node) Remove(ctx context.Context) error {
	c := n.cluster
	c.mu.Lock()
	delete(c.nodes, n.Name)
	c.mu.Unlock()
	n.beating(false)
	n.Behave(func(b *Behaviour) { b.Dead = true })
	csi := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}
	return errors.Join(client.IgnoreNotFound(c.Client.Delete(ctx, csi)), client.IgnoreNotFound(c.Client.Delete(ctx, node)))
}

// Behave changes how the node's kubelet behaves.
func (n *Node) Behave(change func(*Behaviour)) { n.Kubelet.Behave(change) }

// PowerOff stops everything on the node, as if its power had failed, and lets
// the cluster know at once, where the node lifecycle controller takes 40 s.
func (n *Node) PowerOff(ctx context.Context) error {
	n.Behave(func(b *Behaviour) { b.Dead = true })
	n.beating(false)
	if err := n.setReady(ctx, corev1.ConditionUnknown, "NodeStatusUnknown"); err != nil {
		return err
	}
	return n.taint(ctx,
		corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoSchedule},
		corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute})
}

// PowerOn undoes PowerOff. What ran there runs still, as if only the network
// had failed; a pod deleted meanwhile is let go.
func (n *Node) PowerOn(ctx context.Context) error {
	if err := n.setReady(ctx, corev1.ConditionTrue, "KubeletReady"); err != nil {
		return err
	}
	if err := n.taint(ctx); err != nil {
		return err
	}
	n.beating(true)
	n.Behave(func(b *Behaviour) { b.Dead = false })
	if h := n.cluster.Handlers(); h != nil {
		h.Wake()
	}
	return nil
}

// OutOfService sets the taint by which an administrator vouches that the node
// is off. Its pods are deleted by force, as the taint eviction controller and the
// pod garbage collector then do, and its volumes are detached at once.
func (n *Node) OutOfService(ctx context.Context) error {
	err := n.taint(ctx, corev1.Taint{Key: corev1.TaintNodeOutOfService, Value: "nodeshutdown", Effect: corev1.TaintEffectNoExecute})
	if err != nil {
		return err
	}
	for _, pod := range n.Kubelet.Pods() {
		if err := n.cluster.Client.Delete(ctx, pod, client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
			return err
		}
	}
	return nil
}

func (n *Node) beating(alive bool) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if n.dead == nil {
		return // no KubeVirt
	}
	select {
	case <-n.dead: // an older word, not yet heard
	default:
	}
	n.dead <- !alive
}

func (n *Node) setReady(ctx context.Context, status corev1.ConditionStatus, reason string) error {
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: status, Reason: reason, LastTransitionTime: metav1.Now(),
	}}}})
	if err != nil {
		return err
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}
	return n.cluster.Client.Status().Patch(ctx, node, client.RawPatch(types.StrategicMergePatchType, patch))
}

// taint replaces all taints of the node but those that it was registered with.
func (n *Node) taint(ctx context.Context, taints ...corev1.Taint) error {
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"taints": append(slices.Clone(n.taints), taints...)}})
	if err != nil {
		return err
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}
	return n.cluster.Client.Patch(ctx, node, client.RawPatch(types.MergePatchType, patch))
}
