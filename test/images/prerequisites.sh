#!/bin/sh
# Installs buildah and mmdebstrap, both Debian packages, and makes the base system of the
# images in .cache/images. Running it again is cheap: what is there is kept.
set -eu

packages="buildah mmdebstrap"

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=$root/.cache/images
base=$cache/debian.tar

# What is missing keeps the tests from running, and is said so in the end.
failed() {
	echo "images: $1; it needs Debian or a derivate, root, and: $packages" >&2
	exit 1
}
[ "$(id -u)" = 0 ] || failed "this is user $(id -un)"
command -v apt-get >/dev/null || failed "there is no apt-get"
missing=
for p in $packages; do
	dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
if [ -n "$missing" ]; then
	apt-get update -q || failed "the lists of packages cannot be read"
	# shellcheck disable=SC2086 # a list of names
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing || failed "$missing cannot be installed"
fi
if [ ! -f "$base" ]; then
	mkdir -p "$cache"
	work=$(mktemp "$cache/debian.XXXXXX.tar")
	trap 'rm -f "$work"' EXIT
	# The system that Debian's image has, and the CA certificates that Go's adds.
	mmdebstrap --quiet --variant=minbase --include=ca-certificates --dpkgopt=force-unsafe-io \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		bookworm "$work" || failed "the base system cannot be made"
	mv "$work" "$base"
fi
echo "images: $(buildah --version); the base system is $(du -h "$base" | cut -f1)"
