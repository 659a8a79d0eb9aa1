// Package nvme connects this host to NVMe/TCP subsystems and finds the block
// devices that they bring.
//
// What is connected is read from sysfs, on an fs.FS, and only there: the names
// of devices are numbers that the kernel hands out again. A volume's device is
// the namespace head (nvme0n1) of the subsystem with the volume's NQN; the
// devices of single paths (nvme0c1n1) are never used, since they vanish with
// their path. Connecting, disconnecting and rescanning is nvme-cli's, as child
// processes. What may be disconnected is decided by a pure function: this host
// may have booted from NVMe/TCP.
package nvme
