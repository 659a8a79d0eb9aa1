package nvme

import (
	"strings"

	"github.com/google/uuid"

	"git.srvlab.io/whiskey/rds-csi-operator/rds"
)

// hostNamespace makes host identities of node names; it must never change: an
// array, and the kernel, know a host by it.
var hostNamespace = uuid.MustParse("3f1b7f43-6d0b-5c0e-8f5c-0b8a4a4c1d52")

// Host is how this node introduces itself to arrays. Both parts come from the
// node's name, since kernels refuse one id with two NQNs, and since nodes that are
// installed from one image often share /etc/nvme/hostid.
type Host struct {
	NQN string
	ID  string
}

// HostOf derives the identity of a node.
func HostOf(node string) Host {
	id := uuid.NewSHA1(hostNamespace, []byte(node)).String()
	return Host{NQN: "nqn.2014-08.org.nvmexpress:uuid:" + id, ID: id}
}

// Names reports whether an NQN can be that of a volume's export: its own part is
// the slot, the slot and a generation, or, as RouterOS has named exports itself,
// the slot behind a dot.
func Names(nqn, slot string) bool {
	prefix, name, found := strings.Cut(nqn, ":")
	if !found || slot == "" || !strings.HasPrefix(prefix, "nqn.") {
		return false
	}
	return rds.MadeHere(nqn, slot) || name == slot || strings.HasSuffix(name, "."+slot)
}
