// Package rdsdriver turns what an RDSDriver says into what programs take: the arrays'
// configurations, with the keys of their users, and the deadlines. It is apart from
// controllers/driver because reconcilers never speak to an array.
//
// It may import controllers/driver, controllers/dualattach and rds/routeros.
package rdsdriver

import (
	"context"
	"net"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/driver/v1alpha1"
	"git.srvlab.io/whiskey/rds-csi-operator/controllers/dualattach"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

// Arrays are the arrays as the plugin's file names them, keys in files.
func Arrays(spec *v1alpha1.RDSDriverSpec) []routeros.Config {
	var all []routeros.Config
	for i, a := range spec.Arrays {
		config := routeros.Config{
			Name: a.Name, Default: a.Name == spec.DefaultArray || spec.DefaultArray == "" && i == 0,
			Address: net.JoinHostPort(a.Address, strconv.Itoa(int(a.Port))), User: a.User, KeyFile: driver.KeyPath(a.Name),
			HostKey: a.HostKeys, BasePath: a.BasePath, NQNPrefix: a.NVMe.NQNPrefix, NVMeAddresses: a.NVMe.Addresses, NVMePort: int(a.NVMe.Port),
		}
		if a.Reserve != nil {
			config.ReserveBytes = a.Reserve.Value()
		}
		all = append(all, config)
	}
	return all
}

// ArraysWithKeys are the arrays that can be asked: with their users' keys, read from
// Secrets of the operator's namespace, and their defaults filled in. Those that cannot
// are left out, each for one of the reasons.
func ArraysWithKeys(ctx context.Context, reader client.Reader, namespace string, spec *v1alpha1.RDSDriverSpec) (usable []routeros.Config, reasons []error) {
	for i, config := range Arrays(spec) {
		key, err := driver.Key(ctx, reader, namespace, &spec.Arrays[i])
		if err == nil {
			config.KeyFile, config.Key = "", key
			err = config.Validate()
		}
		if err != nil {
			reasons = append(reasons, err)
			continue
		}
		usable = append(usable, config)
	}
	return usable, reasons
}

// Limits are the deadlines in force: those given, unless the RDSDriver says otherwise.
func Limits(otherwise dualattach.Limits, d v1alpha1.Deadlines) dualattach.Limits {
	limits := otherwise
	for _, one := range []struct {
		field *time.Duration
		wish  *metav1.Duration
	}{{&limits.Unbounded, d.Unbounded}, {&limits.Release, d.Release}, {&limits.ReleaseNotReady, d.ReleaseNotReady}} {
		if one.wish != nil {
			*one.field = one.wish.Duration
		}
	}
	return limits
}
