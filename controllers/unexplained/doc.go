// Package unexplained decides what is the matter with the attachments of one
// volume that no migration explains: live pods of different owners on two nodes,
// a node that does not let go, one node too many, a node that is gone, an array
// that was told something else than the cluster says.
//
// Decide is a pure function of a Snapshot: no context, client, clock, log or
// metric. What it is to remember until the next time it gives back as a Memory;
// nothing is spoken of before it has lasted.
//
// It imports the standard library, packages rds and controllers/dualattach (for
// its Event) and API types only.
package unexplained
