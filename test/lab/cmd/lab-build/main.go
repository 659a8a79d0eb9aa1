// Command lab-build builds the programs that the lab runs, if they are missing,
// and says meanwhile how far it is. Arguments name modules of test/tools to build
// besides.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"git.srvlab.io/whiskey/rds-csi-operator/test/lab/binaries"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	started := time.Now()
	progress := func(format string, args ...any) {
		fmt.Printf("[%4.0fs] %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
	more, err := binaries.Named(os.Args[1:]...)
	if err == nil {
		_, err = binaries.Ensure(ctx, progress, append(binaries.Common(), more...)...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab-build:", err)
		os.Exit(1)
	}
	progress("all of the lab's binaries are there")
}
