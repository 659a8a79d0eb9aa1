// Command agent is the hand of the test bed inside a guest. It runs programs,
// reads and writes files, forwards sockets and, on the array guest, drives nvmet.
// Called as `agent write` or `agent verify` it is a small program for block
// devices whose blocks say who wrote them and when.
package main
