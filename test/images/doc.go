// Package images builds the images of the Dockerfile and starts them, with Debian's
// buildah and without a container engine.
//
// No registry is asked. prerequisites.sh makes a base system with mmdebstrap, which
// stands in for Debian's image; with the toolchain that runs the test it stands in for
// Go's. So what is tested is the Dockerfile and what it makes; not that the registry's
// bases are the same.
package images
