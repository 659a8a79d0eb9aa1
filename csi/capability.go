package csi

import (
	"slices"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
)

// singleNode are the access modes of which one node at a time makes use. A
// reader only is not told from a writer: the array exports no read-only disk to
// one host and a writable one to another.
var singleNode = []spec.VolumeCapability_AccessMode_Mode{
	spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	spec.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
}

// checkCapability refuses what a volume of an RDS cannot be.
func checkCapability(c *spec.VolumeCapability) error {
	mode := c.GetAccessMode().GetMode()
	switch {
	case c == nil:
		return invalid("volume_capability is missing")
	case c.GetBlock() == nil && c.GetMount() == nil:
		return invalid("volume_capability has neither block nor mount access")
	case slices.Contains(singleNode, mode):
		return nil
	case mode != spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER:
		return invalid("access mode %s is not supported; use ReadWriteOnce, ReadWriteOncePod, or ReadWriteMany with volumeMode Block", mode)
	case c.GetMount() != nil:
		return invalid("ReadWriteMany needs volumeMode Block: a file system mounted on two nodes is destroyed")
	}
	return nil
}

// checkCapabilities checks a list, which must not be empty.
func checkCapabilities(list []*spec.VolumeCapability) error {
	if len(list) == 0 {
		return invalid("volume_capabilities is missing")
	}
	for _, c := range list {
		if err := checkCapability(c); err != nil {
			return err
		}
	}
	return nil
}

// multiNode reports whether a second node may be asked for.
func multiNode(c *spec.VolumeCapability) bool {
	return c.GetAccessMode().GetMode() == spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
}
