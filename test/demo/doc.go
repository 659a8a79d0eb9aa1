// Command demo shows the product at work: it starts the lab and the product on
// it, plays three live migrations (one that succeeds, one that is rolled back, one
// that hangs), prints what everybody saw meanwhile and afterwards, and fails if
// anything expected is missing.
package main
