#!/bin/sh
# Unpacks (never installs) Debian's Prometheus and Alertmanager into .cache/monitoring.
# Running it again is cheap: nothing is fetched that is already there.
set -eu

packages="prometheus prometheus-alertmanager"

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=$root/.cache/monitoring
if [ -x "$cache/usr/bin/promtool" ] && [ -x "$cache/usr/bin/alertmanager" ]; then
	echo "alerts: $("$cache/usr/bin/prometheus" --version 2>&1 | head -n 1)"
	exit 0
fi

# What is missing keeps the tests from running, and is said so in the end.
failed() {
	echo "alerts: $1; it needs Debian or a derivate, and its packages $packages" >&2
	exit 1
}
for program in apt-get dpkg-deb; do
	command -v $program >/dev/null || failed "there is no $program"
done
mkdir -p "$cache"
work=$(mktemp -d "$cache/unpack.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
# shellcheck disable=SC2086 # a list of names
fetch() { (cd "$work" && apt-get download -q -o APT::Sandbox::User=root $packages); }
# Only the lists of packages take root, and only where they are missing or old.
if ! fetch; then
	sudo=
	[ "$(id -u)" = 0 ] || sudo="sudo -n"
	$sudo apt-get update -q || failed "the lists of packages cannot be read"
	fetch || failed "the packages cannot be fetched"
fi
for package in "$work"/*.deb; do
	dpkg-deb -x "$package" "$cache" || failed "$package cannot be unpacked"
done
# Debian's Alertmanager wants its templates below /usr/share, which is root's. A copy
# finds them from the folder of this test; the two paths are of the same length.
mkdir -p "$cache/templates"
cp "$cache"/usr/share/prometheus/alertmanager/*.tmpl "$cache/templates/"
LC_ALL=C sed 's#/usr/share/prometheus/alertmanager#../../.cache/monitoring//templates#g' \
	"$cache/usr/bin/prometheus-alertmanager" >"$work/alertmanager"
chmod 755 "$work/alertmanager"
mv "$work/alertmanager" "$cache/usr/bin/alertmanager"
echo "alerts: $("$cache/usr/bin/prometheus" --version 2>&1 | head -n 1)"
