// Package gate is a door between one client and the API server that a test holds:
// it sees every write before the API server does and every answer before the
// client does, can cut either off, and can shut altogether. Requests pass with the
// client's own identity, so rights and audit log are as without it.
package gate
