package routeros_test

import (
	"testing"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
	"git.srvlab.io/whiskey/rds-csi-operator/test/arraytest"
	sim "git.srvlab.io/whiskey/rds-csi-operator/test/routeros"
)

// TestConformance runs the suite in every style in which RouterOS was seen, or is
// suspected, to answer.
func TestConformance(t *testing.T) {
	for name, tc := range map[string]struct {
		fs string
		sim.Settings
	}{
		"xfs":          {"xfs", sim.Settings{}},
		"btrfs":        {"btrfs", sim.Settings{}},
		"wrapped":      {"btrfs", sim.Settings{WrapPut: true, Width: 40, LocateErrors: true, ExitStatus: sim.ExitZero}},
		"float, null":  {"xfs", sim.Settings{JSON: sim.JSONStyle{FloatNumbers: true, EmptyAsNull: true}, ExitStatus: sim.ExitOne}},
		"idle, falses": {"xfs", sim.Settings{ShowIdleExport: true, FalseFlags: true, RoundedFileSize: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := simulate(t, tc.fs, sim.Options{Settings: tc.Settings})
			cfg := config(t, server)
			arraytest.Run(t, func(t *testing.T) rds.Array { return connect(t, cfg) })
			if t.Failed() {
				return
			}
			for _, f := range server.Files() {
				if f.Name != "raid10" && f.Name != base {
					t.Errorf("left behind: %+v", f)
				}
			}
			if len(server.Disks()) != 1 || len(server.Subvolumes()) != 0 {
				t.Errorf("left behind: %+v, %+v", server.Disks(), server.Subvolumes())
			}
		})
	}
}
