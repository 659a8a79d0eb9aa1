package dataplane

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// TestDoctor has csi-plugin doctor examine the array from a node, as its first users
// will: all of its checks, those that a host makes among them, and nothing is left.
func TestDoctor(t *testing.T) {
	s := begin(t)
	// The default is the worst that an array may do, and the doctor says so.
	s.array.Configure(func(o *routeros.Settings) { o.WholeScripts = true })
	t.Cleanup(func() { s.array.Configure(func(o *routeros.Settings) { o.WholeScripts = false }) })
	key, err := os.ReadFile(s.bed.path(keyFile))
	s.must(err)
	s.must(s.a.WriteFile(s.ctx, "/etc/doctor.key", 0o600, key))
	s.must(s.a.WriteFile(s.ctx, "/etc/doctor.yaml", 0o600, fmt.Appendf(nil, `arrays:
- {name: main, address: %q, user: admin, keyFile: /etc/doctor.key, hostKey: %q, basePath: %s, nvmeAddresses: [%s, %s]}
`, consoleAddress, s.array.HostKeyLine(), basePath, ArrayAddress, SecondAddress)))
	before := len(s.array.Disks())
	out, err := s.a.Run(s.ctx, pluginPath, "doctor", "--arrays-file=/etc/doctor.yaml", "--scratch", "--node")
	t.Log(out)
	if err != nil || !strings.Contains(out, "25 passed, 0 failed, 0 unknown, 0 skipped") {
		t.Errorf("the doctor: %v", err)
	}
	if after := len(s.array.Disks()); after != before {
		t.Errorf("%d disks became %d", before, after)
	}
	if left, err := s.a.Shell(s.ctx, "cat /sys/class/nvme-subsystem/*/subsysnqn 2>/dev/null || true"); err != nil || strings.Contains(left, "rds-doctor") {
		t.Errorf("connections are left: %s, %v", left, err)
	}
}
