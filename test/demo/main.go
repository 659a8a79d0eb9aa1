package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab"
	"git.srvlab.io/whiskey/rds-csi-operator/test/stack"
)

// namespace is where the VMs of the demo live.
const namespace = "demo"

func main() {
	keep := flag.Bool("keep", false, "leave everything running until Ctrl-C")
	flag.Parse()
	ctrl.SetLogger(logr.Discard()) // what matters is on the timeline and in the logs
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, keep bool) (err error) {
	started := time.Now()
	fmt.Println("rds-csi-operator: three live migrations of VMs whose RDS volumes two nodes share meanwhile.")
	fmt.Println("Real: etcd, kube-apiserver, attach/detach controller, csi-provisioner, csi-attacher, virt-api, virt-controller, our plugin and operator.")
	fmt.Println("Simulated: the array (an SSH server that speaks RouterOS), kubelets and virt-handlers.")
	fmt.Println()
	s, err := stack.Start(ctx, stack.Options{Lab: lab.Options{
		Nodes:    []string{"node-a"},
		KubeVirt: lab.KubeVirtOptions{ParallelMigrations: 10, ParallelOutbound: 10},
		Progress: func(format string, args ...any) {
			fmt.Printf("  [%5.1fs] %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
		},
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	problems, err := play(ctx, s)
	if err != nil {
		return errors.Join(err, s.Err())
	}
	if keep {
		leaveRunning(ctx, s)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%d of what was expected is missing: %w", len(problems), errors.Join(problems...))
	}
	fmt.Println("\ndemo: 3 migrations observed: 1 success, 1 failed, 1 timeout")
	return nil
}

// leaveRunning says how to look around, and waits for Ctrl-C.
func leaveRunning(ctx context.Context, s *stack.Stack) {
	kubeconfig, err := s.AdminKubeconfig()
	if err != nil {
		fmt.Println("no kubeconfig:", err)
		return
	}
	kubectl, err := s.KubectlPath()
	if err != nil {
		fmt.Println("no kubectl:", err)
		return
	}
	fmt.Printf(`
Left running, until Ctrl-C. In another terminal:
  export KUBECONFIG=%s
  alias kubectl=%s
  kubectl -n %s describe vmim
  kubectl -n %s get events --field-selector involvedObject.kind=PersistentVolumeClaim
  kubectl get volumeattachment
  kubectl -n %s delete vmim --all        # cancel the one that hangs, and watch it being released
  curl -s http://%s/metrics | grep ^rds_csi
  less %s
`, kubeconfig, kubectl, namespace, namespace, namespace, s.Operators[0].Metrics, filepath.Join(s.Dir, "logs", "operator-1.log"))
	select {
	case <-ctx.Done():
	case <-s.Context().Done():
	}
}
