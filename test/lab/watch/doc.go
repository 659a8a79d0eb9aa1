// Package watch keeps a user's view of the objects of one kind up to date and
// tells when it changes; the lab's kubelets, scheduler and handlers live on it.
package watch
