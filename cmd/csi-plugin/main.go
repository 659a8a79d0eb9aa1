// Command csi-plugin is the CSI plugin for RDS arrays. In controller mode it
// serves the Identity and Controller services to csi-provisioner, csi-attacher
// and csi-resizer; in node mode the Identity and Node services to kubelet. As
// `csi-plugin doctor` it checks an array instead.
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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "doctor" {
		os.Exit(runDoctor(ctx, os.Args[2:], os.Stdout, os.Stderr))
	}
	var options Options
	flags := flag.NewFlagSet("csi-plugin", flag.ExitOnError)
	options.AddFlags(flags)
	_ = flags.Parse(os.Args[1:]) // ExitOnError: it does not return an error
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "csi-plugin: unexpected argument %q\n", flags.Arg(0))
		os.Exit(2)
	}
	if err := run(ctx, options); err != nil {
		fmt.Fprintln(os.Stderr, "csi-plugin:", err)
		os.Exit(1)
	}
}
