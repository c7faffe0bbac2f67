#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing on Debian 12, by apt, when run as root; otherwise says exactly what to
# install and fails. With nothing missing it is one dpkg-query.
#
#     packaging/install-deps.sh GROUP...      build, demo, test, bench
set -eu

packages_of() {
    case $1 in
    build) echo gcc libc6-dev make meson ninja-build pkg-config \
        libidn2-dev libjansson-dev libmnl-dev libpsl-dev libssl-dev ;;
    demo) echo curl iproute2 python3 ;;
    test)
        # Compilers and linters; libraries; clients and servers of the tests in namespaces.
        echo clang clang-format-14 clang-tidy-14 cppcheck g++ \
            libcmocka-dev libldns-dev \
            bind9-dnsutils busybox-static curl dnsmasq-base ethtool iperf3 iproute2 iputils-ping \
            iputils-tracepath isc-dhcp-client knot-dnsutils ldnsutils mandoc ndisc6 netcat-openbsd \
            nftables procps python3 qemu-system-x86 socat strace traceroute udhcpc
        ;;
    bench)
        echo busybox-static curl dnsmasq-base dnsperf iperf3 iproute2 passt procps python3 \
            qemu-system-x86 slirp4netns strace
        ;;
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

install_missing() {
    [ -n "$missing" ] || return 0
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
}

# The kernel of the tests and benchmarks in virtual machines is unpacked, not installed: it would otherwise become
# this machine's. Without it those are skipped.
kernel=/var/cache/culvert/guest-kernel
unpack_kernel() {
    rm -rf "$kernel.new" && mkdir -p "$kernel.new" && cd "$kernel.new" || return 1
    package=$(apt-cache depends linux-image-cloud-amd64 |
        sed -n 's/.*Depends: \(linux-image-.*-cloud-amd64\)$/\1/p')
    apt-get download -qq "$package" >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get download -qq "$package"; } >/dev/null 2>&1 || return 1
    dpkg -x "$package"_*.deb . && rm -f ./*.deb && mv "$kernel.new" "$kernel"
}

fetch_guest_kernel() {
    [ "$(dpkg --print-architecture)" = amd64 ] && [ ! -d "$kernel" ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        echo "No kernel for virtual machines: what needs them is skipped until root has fetched one" >&2
        return 0
    fi
    echo "Fetching a kernel for virtual machines"
    (unpack_kernel) || echo "It cannot be had: what needs virtual machines will be skipped" >&2
}

install_missing
case " $* " in *" test "* | *" bench "*) fetch_guest_kernel ;; esac
