// Command operator watches live migrations of KubeVirt VMs whose RDS volumes two
// nodes share meanwhile, and says in conditions, events and metrics how far they
// are and which of them are stuck.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	var options Options
	flags := flag.NewFlagSet("operator", flag.ExitOnError)
	options.AddFlags(flags)
	_ = flags.Parse(os.Args[1:]) // ExitOnError: it does not return an error
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "operator: unexpected argument %q\n", flags.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, options); err != nil {
		fmt.Fprintln(os.Stderr, "operator:", err)
		os.Exit(1)
	}
}
