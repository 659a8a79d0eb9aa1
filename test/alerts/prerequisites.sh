#!/bin/sh
# Unpacks (never installs) Debian's Prometheus and Alertmanager into .cache/monitoring.
# Running it again is cheap.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=$root/.cache/monitoring
[ -x "$cache/usr/bin/promtool" ] && [ -x "$cache/usr/bin/prometheus-alertmanager" ] && exit 0

mkdir -p "$cache"
work=$(mktemp -d "$cache/unpack.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
if ! (cd "$work" && apt-get download -q -o APT::Sandbox::User=root prometheus prometheus-alertmanager); then
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	$sudo apt-get update -q
	(cd "$work" && apt-get download -q -o APT::Sandbox::User=root prometheus prometheus-alertmanager)
fi
for package in "$work"/*.deb; do
	dpkg-deb -x "$package" "$cache"
done
echo "alerts: $("$cache/usr/bin/prometheus" --version 2>&1 | head -n 1)"
