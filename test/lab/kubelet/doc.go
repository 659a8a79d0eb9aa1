// Package kubelet plays the kubelets and the scheduler of a lab.
//
// A Kubelet has the identity, and so the rights, of a real one. It does what
// the rest of a cluster sees of a kubelet: it registers its Node and CSINode,
// waits for its pods' volumes to be attached, reports them in use, runs pods,
// ends them, and reports volumes no longer in use before it lets a pod go. A
// Behaviour makes it slow, stuck or dead. Pods are played, unless a Runtime (package
// pods) runs them.
package kubelet
