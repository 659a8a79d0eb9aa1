// Command bench measures what an RPC costs on a simulated array: the SSH
// round trips of each, with and without a view to start from, and how many
// volumes a second go through their life at a given latency, also over a line on which
// connections are cut. It exits non-zero when a change takes more than one round trip
// warm or two cold (deletion, which has to look for files, is exempt), or when a
// volume was lost or anything is left in the end.
//
// It imports the standard library, packages csi, rds and rds/routeros, and the
// simulator.
package main
