// Package pods runs the containers of a lab's pods for real, as local processes.
//
// A Runtime is given to the lab's kubelets (lab.Options.Pods); the real controllers
// of Deployments, ReplicaSets and DaemonSets make the pods. A Program stands for each
// image (Runtime.Add). Of what a manifest says of a pod this is honoured:
//
//   - command (but for the program's own name) and args with $(VAR), env with
//     values, fields of the pod, keys of Secrets and ConfigMaps;
//   - volumes of the kinds emptyDir, secret, configMap, downwardAPI, projected (the
//     service account's token among them) and hostPath, which is a folder of the
//     node's own. They are folders below the lab's; for that the places where they
//     are mounted are rewritten in args, in env, and in the text files of Secrets and
//     ConfigMaps (arrays.yaml says keyFile: /etc/rds-csi/keys/main);
//   - the pod's service account and no other rights: KUBECONFIG names a file with the
//     token that the kubelet asked for, bound to the pod. A program that does not read
//     the variable takes it as an argument of Program;
//   - addresses: each pod has a loopback address of its own, so two pods may listen at
//     one port. Addresses to listen at (:8443, 0.0.0.0:8443, 127.0.0.1:8443) are
//     rewritten to it. A program that listens everywhere by default must be told
//     otherwise by an argument;
//   - startup, readiness and liveness probes by HTTP, HTTPS, TCP and exec, with their
//     thresholds and periods; readiness is looked at more often until it is there;
//   - restarts after an exit or a failed liveness probe, after pauses that double from
//     200 ms to 10 s; SIGTERM, the pod's grace and SIGKILL when it is deleted;
//   - a root file system that is read-only, as far as TMPDIR goes.
//
// A process cannot honour, and this ignores: namespaces (process ids, network and
// hostNetwork, mounts and their propagation), users and groups, capabilities,
// privilege, seccomp, resources, working directories, the image's own environment,
// lifecycle hooks, NetworkPolicies, and DNS. Secrets and ConfigMaps are read when
// the pod starts and not again, tokens are not renewed. `kubectl logs` and `exec` have
// nobody to ask: see Runtime.LogFile. Services have no addresses: see
// lab.Cluster.ServiceAddresses. What would change the outcome is not ignored but
// keeps the pod waiting, with the reason in its status: init containers, claims,
// other volumes, other probes, envFrom, restart policies but Always.
package pods
