package rds

import (
	"net/netip"
	"regexp"
)

// MaxPortals is how many addresses a volume may be reached by.
const MaxPortals = 8

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)

// IsHost reports whether all nodes can take s for a host: an IP address that is not of
// one link only, or a name of at most 253 letters, digits, dots and dashes.
func IsHost(s string) bool {
	address, err := netip.ParseAddr(s)
	return err == nil && address.Zone() == "" || hostName.MatchString(s)
}
