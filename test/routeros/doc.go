// Package routeros simulates a MikroTik ROSE Data Server: an SSH server that
// speaks enough of RouterOS 7.24's console for clients that manage disks,
// files and NVMe/TCP exports, with faults at every point where a real array
// or the network between can fail.
//
// It knows nothing of any client. What it does comes from recorded outputs,
// from RouterOS's own schema of its menus and from the manual; where none of
// them says, the most dangerous plausible answer is the default and Settings
// changes it.
//
// The language is in internal/script, the state in internal/array, the layout
// of text in internal/render. It imports nothing of ours outside this folder,
// and nothing that ships may import it.
package routeros
