// Package guest boots small virtual machines with a real kernel and talks to the
// agent in them. A guest has a network card of its own for that; the other cards
// are wired to the other guests.
package guest
