package dualattach

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/stages.golden")

// histories is how many random histories an ordinary `go test` looks at.
const histories = "10000"

func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", histories); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	flag.Parse()
	os.Exit(m.Run())
}
