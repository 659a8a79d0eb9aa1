package nvme

import (
	"errors"
	"io/fs"
	"syscall"
)

// gone reports whether an error says that a file of sysfs is not there (any
// more). Reading an attribute of a device that is being removed gives ENODEV or
// ENXIO.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENXIO)
}
