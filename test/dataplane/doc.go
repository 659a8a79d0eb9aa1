// Package dataplane proves the plugin where it counts: over real NVMe/TCP,
// between real kernels.
//
// A Bed is three virtual machines that boot once per run: the array, whose
// kernel exports files through nvmet, and two nodes, on which the node plugin
// runs with nvme-cli, mkfs and mount as on any node. The array's console, the
// simulator of test/routeros, runs in the test's own process, where a test can
// inject faults; every change it makes to a file or an export is carried out in
// the array guest before the console answers. Of a cluster there is what the nodes
// ask: a stand-in for the API server, which has volumes and takes events.
//
//	test process: scenarios · Controller service · array simulator (SSH) · API
//	     │ agent             │ agent (CSI socket)     │ agent
//	┌────┴─────┐        ┌────┴─────┐             ┌────┴─────┐
//	│  array   ├────────┤  node-a  │     ┌───────┤  node-b  │
//	│  nvmet   ├────────┼──────────┼─────┘       │          │
//	└──────────┘  eth1  └──────────┘    eth2     └──────────┘
//
// prerequisites.sh installs what is needed. Without it the tests are skipped
// with the reason, or fail where CI=true. DATAPLANE_ACCEL=kvm uses KVM;
// the default is plain emulation. DATAPLANE_KEEP names a folder for the guests'
// consoles.
package dataplane
