// Package audit reads the API server's audit log, so that a test can count who
// asked the API server for what: the only count that no client can get wrong.
package audit
