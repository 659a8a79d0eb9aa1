// Command kubectl-rds is a plugin of kubectl (`kubectl rds`): which migrations of VMs
// are under way and how long they may still take, who holds which volume of an RDS
// array, and what is the matter with a VM's storage. It decides by the operator's own
// code on the cluster as it is now; it reads, and never writes.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	// What goes wrong is told once, as the command's error.
	klog.SetLogger(logr.Discard())
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	command := newCommand(genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr})
	if err := command.ExecuteContext(ctx); err != nil {
		os.Exit(1) // cobra has printed it
	}
}
