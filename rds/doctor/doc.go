// Package doctor checks on a user's own array what this project assumes about
// RouterOS and could not see on one (marked [INF] in the code).
//
// A Check is a value: its name, what is assumed, what rests on it, and a function that
// finds out. Examine runs them one by one; Text and JSON print the report. Without
// leave nothing on the array is changed. With it a volume is made, under a name that
// nothing else bears, and removed again however the examination ends.
//
// It imports the standard library, golang.org/x/sync/errgroup, and packages rds and
// rds/routeros.
package doctor
