// Package child runs programs as child processes that have deadlines.
//
// While an NVMe controller reconnects, every access to its disk hangs in the
// kernel, and so does the process that made it: not even SIGKILL ends it. So
// such access is left to children; one that outlives its deadline is killed and,
// if that does not help, left behind. Who it works for is remembered: no second
// operation on the same volume begins while a child of the first may still
// wake up and act.
package child
