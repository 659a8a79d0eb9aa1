// Package process runs a lab's programs: each logs to a file, dies with this
// process however this one ends, and never fails unseen: an end that nobody
// asked for is an error with the last lines of the log.
package process
