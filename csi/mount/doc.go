// Package mount does the filesystem work of a node: it looks what is on a device,
// formats it if it is provably blank, mounts, bind-mounts, grows and unmounts.
//
// Where k8s.io/mount-utils has the knowledge (what blkid says, how arguments of
// mount are put, how a filesystem grows, the table of mounts) it is used, with a
// runner of child processes with deadlines below it: mount-utils' own Mounter
// would wait for ever for a disk that does not answer.
package mount
