// Package node is the CSI Node service: it connects a volume to this node over
// NVMe/TCP, mounts it or shows its device to pods, and takes it away again.
//
// What is true is what the kernel says: sysfs (package nvme) and the table of
// mounts (package mount). A small record per volume adds what the kernel does
// not know: what was asked for. It is written before anything is changed, so a
// plugin that was killed at any step finds what it began, and a volume is
// unstaged without what its staging was told.
//
// Whatever cannot be told is an error: a device is formatted only if it is
// provably blank, and disconnected only if it is provably a volume of this driver
// that nothing on this node uses. A volume whose device died under its mount is
// reported, and never staged anew under a running pod.
//
// The package needs no Kubernetes API: events about volumes are for its Config's
// Announce.
package node
