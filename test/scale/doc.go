// Package scale measures the operator among a thousand VMs: how soon it says what
// fifty migrations at once do, what it takes of memory and processor for that, and
// that it asks and writes nothing while nothing happens. The VMs are real objects
// behind KubeVirt's real webhooks and controllers, with volumes of the plugin.
package scale
