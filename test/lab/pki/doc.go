// Package pki is a certificate authority for one lab: it signs the servers'
// certificates for loopback and the clients' that name a user.
package pki
