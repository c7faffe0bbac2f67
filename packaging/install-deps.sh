#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing on Debian 12, by apt, when run as root; otherwise says exactly what to
# install and fails. With nothing missing it is one dpkg-query.
#
#     packaging/install-deps.sh GROUP...      build, demo, test, bench
set -eu

packages_of() {
    case $1 in
    build) echo gcc libc6-dev make meson ninja-build pkg-config libmnl-dev ;;
    demo) echo curl iproute2 python3 ;;
    test)
        # Compilers and linters; libraries; clients and servers of the tests in namespaces.
        echo clang clang-format-14 clang-tidy-14 cppcheck g++ \
            libcmocka-dev libldns-dev \
            bind9-dnsutils curl dnsmasq-base iperf3 iproute2 iputils-ping \
            isc-dhcp-client netcat-openbsd nftables procps python3 socat strace traceroute
        ;;
    bench) echo curl iperf3 iproute2 passt procps python3 slirp4netns strace ;;
    *)
        echo "install-deps.sh: unknown group '$1': write build, demo, test or bench" >&2
        exit 2
        ;;
    esac
}

[ $# -gt 0 ] || set -- build
wanted=
for group in "$@"; do
    list=$(packages_of "$group")
    wanted="$wanted $list"
done

# Packages are one word each: all splitting here is meant.
# shellcheck disable=SC2086
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null |
    sed -n 's/^installed //p') || true
missing=
for package in $wanted; do
    # shellcheck disable=SC2086
    printf '%s\n' $installed $missing | grep -qxF "$package" || missing="$missing $package"
done

[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "Packages are missing. Install them, then try again:" >&2
    echo "    sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "Installing$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
apt-get install -qq -y --no-install-recommends $missing >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends $missing >/dev/null; }
