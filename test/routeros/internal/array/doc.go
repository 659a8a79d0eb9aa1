// Package array is the state behind the simulated menus: pools, disks, files
// and subvolumes of a ROSE Data Server, and what each menu command does to
// them.
//
// Which menus, commands and parameters exist is data: RouterOS 7.24's own
// schema, embedded from schema/. Every command takes the array's lock for
// itself, so scripts interleave between commands but never inside one.
//
// It imports internal/script and internal/render and nothing else of ours.
package array
