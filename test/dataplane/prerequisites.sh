#!/bin/sh
# Installs what the data plane test bed needs, all of it Debian packages, and
# unpacks (never installs) the guests' kernel into .cache/dataplane/kernel.
# Running it again is cheap: nothing is fetched that is already there.
set -eu

packages="qemu-system-x86 busybox-static kmod nvme-cli e2fsprogs xfsprogs util-linux xz-utils"
meta=linux-image-cloud-amd64

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=$root/.cache/dataplane
mkdir -p "$cache"

missing=
for p in $packages; do
	dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
if [ -z "$missing" ] && [ -f "$cache/kernel/version" ]; then
	echo "data plane: prerequisites are there, kernel $(cat "$cache/kernel/version")"
	exit 0
fi

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

# What is missing keeps the tests from running, and is said so in the end.
failed() {
	echo "data plane: $1; it needs Debian or a derivate, the right to install packages, and:$missing $meta" >&2
	exit 1
}
command -v apt-get >/dev/null || failed "there is no apt-get"
$sudo apt-get update -q || failed "the lists of packages cannot be read"
if [ -n "$missing" ]; then
	# shellcheck disable=SC2086 # a list of names
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends $missing || failed "packages cannot be installed"
fi

# The metapackage names the current kernel.
kernel=$(apt-cache depends "$meta" | sed -n 's/^ *Depends: \(linux-image-.*-cloud-amd64\).*/\1/p' | head -n 1)
[ -n "$kernel" ] || failed "$meta names no kernel"
work=$(mktemp -d "$cache/unpack.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
(cd "$work" && apt-get download -q -o APT::Sandbox::User=root "$kernel") || failed "the guests' kernel cannot be fetched"
mkdir "$work/kernel"
dpkg-deb -x "$work"/*.deb "$work/kernel"
release=${kernel#linux-image-}
# Newer Debian kernels come with their modules in /usr/lib/modules.
[ -d "$work/kernel/lib/modules" ] || { mkdir -p "$work/kernel/lib" && mv "$work/kernel/usr/lib/modules" "$work/kernel/lib/modules"; }
depmod -b "$work/kernel" "$release"
echo "$release" >"$work/kernel/version"
rm -rf "$cache/kernel"
mv "$work/kernel" "$cache/kernel"
echo "data plane: kernel $release is in .cache/dataplane/kernel"
