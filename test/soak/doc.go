// Package soak makes a lab live through rounds of migrations, faults and kills that
// follow from a seed, and checks after each round, and all the time, what must always
// hold. The plan is a pure function of the seed, and says when in terms of a
// migration's steps; so a seed that failed makes the same things happen again.
package soak
