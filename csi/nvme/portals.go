package nvme

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// Lookup finds the addresses of a host name.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// LookupHere asks the resolver of this host.
func LookupHere(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// Portals are those of hosts, which are addresses or names, at one port; two of one
// address are one. Names are looked up here, since the kernel shows addresses. What is
// no host is rds.ErrInvalid, and a name that is not found ErrUnreachable.
func Portals(ctx context.Context, lookup Lookup, hosts []string, port string) ([]Portal, error) {
	var portals []Portal
	for _, host := range hosts {
		address, err := resolve(ctx, lookup, host)
		if err != nil {
			return nil, err
		}
		if p := (Portal{Address: address, Port: port}); !slices.Contains(portals, p) {
			portals = append(portals, p)
		}
	}
	return portals, nil
}

func resolve(ctx context.Context, lookup Lookup, host string) (netip.Addr, error) {
	if address, err := netip.ParseAddr(host); err == nil {
		if address.Zone() != "" {
			return netip.Addr{}, fmt.Errorf("%w: %q is an address of one link only; nodes reach the array by another", rds.ErrInvalid, host)
		}
		return address.Unmap(), nil
	}
	if !rds.IsHost(host) {
		return netip.Addr{}, fmt.Errorf("%w: %q is neither an address nor a host name", rds.ErrInvalid, host)
	}
	addresses, err := lookup(ctx, host)
	if err == nil && len(addresses) == 0 {
		err = errors.New("it has no address")
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: look up %s: %w", ErrUnreachable, host, err)
	}
	// Always the same one, so that a second attempt finds the first one's connection.
	return slices.MinFunc(addresses, netip.Addr.Compare).Unmap(), nil
}
