package dataplane

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

// One bed serves all tests of the package; why there is none is in unavailable.
var (
	shared      *Bed
	unavailable string
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	if testing.Short() {
		unavailable = "needs three virtual machines: run without -short"
		return m.Run()
	}
	missing, err := Missing()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if missing != "" {
		unavailable = missing
		fmt.Fprintln(os.Stderr, "the data plane is not tested:", missing)
		return m.Run()
	}
	started := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // a cold build
	defer cancel()
	shared, err = Start(ctx, func(format string, args ...any) {
		fmt.Printf("[%5.1fs] %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shared.Close()
	if err := world.open(ctx, shared); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer world.close()
	fmt.Printf("[%5.1fs] the plugin runs on both nodes\n", time.Since(started).Seconds())
	return m.Run()
}

// bed gives a test the guests and a deadline. Without guests the test is
// skipped with the reason; in CI that is a failure.
func bed(t *testing.T) (context.Context, *Bed) {
	t.Helper()
	if shared == nil {
		if os.Getenv("CI") == "true" && !testing.Short() {
			t.Fatal(unavailable)
		}
		t.Skip(unavailable)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx, shared
}
