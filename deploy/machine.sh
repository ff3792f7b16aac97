#!/bin/sh
# Installs what real containers, their networks and the tests need, where this is a Debian machine and we are root.
set -eu

packages="crun conmon nftables busybox-static iproute2 conntrack"
extras="containerd containernetworking-plugins skopeo docker-registry apache2-utils etcd-client victoria-metrics curl"
[ "${CI:-}" = "" ] || packages="$packages $extras"

if ! command -v apt-get >/dev/null 2>&1; then
    echo "no apt-get here: install crun (or runc), conmon, nftables and a static busybox for real containers" >&2
    exit 0
fi
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "not root: without$missing pods run as plain processes; as root, apt-get install$missing" >&2
    exit 0
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
