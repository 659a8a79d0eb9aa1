package csi

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// The StorageClass parameters, and with the exception of `array` keys of the
// volume context, too.
const (
	paramArray            = "array"
	paramDualAttach       = "dualAttach"
	paramMigrationTimeout = "migrationTimeoutSeconds"
	// paramPortals are addresses of the array, parted by commas, by which nodes reach
	// the class's volumes instead of by the array's own nvmeAddresses.
	paramPortals = "nvmePortals"
	// sidecarPrefix marks what csi-provisioner adds with --extra-create-metadata.
	sidecarPrefix = "csi.storage.k8s.io/"
)

// Keys of the volume context and the publish context.
const (
	contextAddress    = "nvmeAddress"
	contextAddresses  = "nvmeAddresses"
	contextPort       = "nvmePort"
	contextAccessMode = "accessMode"
	contextNQN        = "nqn"
	contextGeneration = "generation"
	contextSize       = "sizeBytes" // what the device has at least
)

// metadataKeys are those of the sidecar's that are kept in the volume context,
// under their own names.
var metadataKeys = []string{sidecarPrefix + "pv/name", sidecarPrefix + "pvc/name", sidecarPrefix + "pvc/namespace"}

// The values of dualAttach.
const (
	dualAttachLiveMigration = "LiveMigration" // a second node for the live migration of a VM only; see Guard
	dualAttachAny           = "Any"           // any second node, and the Guard is not asked
)

// The values of the context's accessMode, in Kubernetes' words.
const (
	readWriteOnce = "ReadWriteOnce"
	readWriteMany = "ReadWriteMany"
)

// Bounds of migrationTimeoutSeconds.
const minMigrationTimeout, maxMigrationTimeout = 30, 3600

// parameters are those of a StorageClass.
type parameters struct {
	array            string
	dualAttach       string
	migrationTimeout string            // seconds, empty if not given
	metadata         map[string]string // of the sidecar's keys
	connection       map[string]string // how nodes connect, as given
}

func parseParameters(given map[string]string) (parameters, error) {
	p := parameters{dualAttach: dualAttachLiveMigration, metadata: map[string]string{}, connection: map[string]string{}}
	// In order, so that the same mistake is always told in the same words.
	for _, key := range slices.Sorted(maps.Keys(given)) {
		value := given[key]
		bounds, ofConnection := rds.ConnectionBounds[key]
		switch {
		case key == paramArray:
			p.array = value
		case key == paramDualAttach:
			if value != dualAttachLiveMigration && value != dualAttachAny {
				return p, invalid("parameter %s is %q; it is %s or %s", key, value, dualAttachLiveMigration, dualAttachAny)
			}
			p.dualAttach = value
		case key == paramMigrationTimeout:
			seconds, err := strconv.Atoi(value)
			if err != nil || seconds < minMigrationTimeout || seconds > maxMigrationTimeout {
				return p, invalid("parameter %s is %q; it is a number of seconds from %d to %d", key, value, minMigrationTimeout, maxMigrationTimeout)
			}
			p.migrationTimeout = strconv.Itoa(seconds)
		case key == paramPortals:
			portals, err := parsePortals(value)
			if err != nil {
				return p, err
			}
			p.connection[key] = portals
		case ofConnection:
			number, err := strconv.Atoi(value)
			if err != nil || !bounds.Admit(number) {
				return p, invalid("parameter %s is %q; it is a number from %d to %d", key, value, bounds.Min, bounds.Max)
			}
			p.connection[key] = strconv.Itoa(number)
		case slices.Contains(metadataKeys, key):
			p.metadata[key] = value
		case strings.HasPrefix(key, sidecarPrefix):
		default:
			return p, invalid("parameter %q is not known; known are %s, %s and %s, and for connections %s, %s", key, paramArray, paramDualAttach, paramMigrationTimeout, paramPortals, strings.Join(slices.Sorted(maps.Keys(rds.ConnectionBounds)), ", "))
		}
	}
	return p, nil
}

// parsePortals reads addresses or host names parted by commas, and gives them as
// nodes take them.
func parsePortals(list string) (string, error) {
	portals := strings.Split(list, ",")
	for i, portal := range portals {
		portals[i] = strings.TrimSpace(portal)
		if !rds.IsHost(portals[i]) {
			return "", invalid("parameter %s has %q, which is neither an address nor a host name", paramPortals, portal)
		}
	}
	if len(portals) > rds.MaxPortals {
		return "", invalid("parameter %s has %d addresses; it has 1 to %d, parted by commas", paramPortals, len(portals), rds.MaxPortals)
	}
	return strings.Join(portals, ","), nil
}

// volumeContext is what nodes and the operator learn of a volume for its life.
func (p parameters) volumeContext(b *Backend, caps []*spec.VolumeCapability) map[string]string {
	context := maps.Clone(p.metadata)
	maps.Copy(context, p.connection)
	context[contextAddress] = b.Addresses[0]
	context[contextAddresses] = b.portals(p.connection)
	context[contextPort] = strconv.Itoa(b.Port)
	context[paramDualAttach] = p.dualAttach
	context[contextAccessMode] = readWriteOnce
	if slices.ContainsFunc(caps, multiNode) {
		context[contextAccessMode] = readWriteMany
	}
	if p.migrationTimeout != "" {
		context[paramMigrationTimeout] = p.migrationTimeout
	}
	return context
}

// portals are the addresses by which nodes reach a volume: those of its StorageClass,
// if it named any, else those of the array as it is configured now.
func (b *Backend) portals(context map[string]string) string {
	return cmp.Or(context[paramPortals], strings.Join(b.Addresses, ","))
}

// contextDualAttach reads the sharing policy from a volume context; one of a
// volume that was not made by this plugin says nothing.
func contextDualAttach(context map[string]string) (string, error) {
	switch value := context[paramDualAttach]; value {
	case "":
		return dualAttachLiveMigration, nil
	case dualAttachLiveMigration, dualAttachAny:
		return value, nil
	default:
		return "", fmt.Errorf("the volume's attribute %s: %w", paramDualAttach, invalid("%q is neither %s nor %s", value, dualAttachLiveMigration, dualAttachAny))
	}
}
