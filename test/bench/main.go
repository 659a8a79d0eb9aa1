package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

func main() {
	var o options
	flag.DurationVar(&o.latency, "latency", 50*time.Millisecond, "the array's latency for each command")
	flag.IntVar(&o.concurrency, "concurrency", 16, "volumes at the same time")
	flag.IntVar(&o.volumes, "volumes", 64, "volumes of the throughput measurement")
	flag.IntVar(&o.churn, "churn", 500, "volumes of the measurement over a line on which 2 % of the connections are cut")
	flag.IntVar(&o.channels, "channels", 4, "commands at once on the one SSH connection")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
