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
        libidn2-dev libjansson-dev libmnl-dev libpsl-dev libseccomp-dev \
        libssl-dev ;;
    demo) echo curl iproute2 python3 ;;
    test)
        # Compilers and linters; libraries; clients and servers of the tests in namespaces.
        echo clang clang-format-14 clang-tidy-14 cppcheck g++ \
            libcmocka-dev libldns-dev \
            bind9-dnsutils busybox-static curl dnsmasq-base ethtool iperf3 iproute2 iputils-ping \
            iputils-tracepath isc-dhcp-client knot-dnsutils ldnsutils libfaketime mandoc ndisc6 \
            netcat-openbsd nftables ngtcp2-client ngtcp2-server procps python3 \
            qemu-system-x86 socat strace traceroute udhcpc valgrind
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

# The kernel of the tests and benchmarks in virtual machines is unpacked, not installed: it would
# otherwise become this machine's. Without it those are skipped.
kernel=/var/cache/culvert/guest-kernel
unpack_kernel() {
    package=$(apt-cache depends linux-image-cloud-amd64 |
        sed -n 's/.*Depends: \(linux-image-.*-cloud-amd64\)$/\1/p')
    unpack "$kernel" "$package"
}

# So are nginx, whose package would start a daemon, and DPDK, whose package takes 171 MB and replaces
# systemd on its way: a program and the libraries it wants are a tenth of it.
download() {
    apt-get download -qq "$@" >/dev/null 2>&1 || { apt-get update -qq && apt-get download -qq "$@"; } \
        >/dev/null 2>&1
}

unpack() { # DIRECTORY PACKAGE...
    to=$1 && shift
    rm -rf "$to.new" && mkdir -p "$to.new" && cd "$to.new" && download "$@" || return 1
    for package in *.deb; do
        dpkg -x "$package" . || return 1
    done
    rm -f ./*.deb && mv "$to.new" "$to"
}

dpdk=/var/cache/culvert/dpdk
unpack_dpdk() {
    of_testpmd=$(apt-cache depends dpdk-dev | sed -n 's/.*Depends: \(librte-.*\)$/\1/p')
    driver=$(apt-cache depends libdpdk-dev | sed -n 's/.*Depends: \(librte-net-virtio.*\)$/\1/p')
    # shellcheck disable=SC2086
    all=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances $of_testpmd $driver | grep '^librte' | sort -u)
    # shellcheck disable=SC2086
    unpack "$dpdk" dpdk-dev ibverbs-providers $all
}

nginx=/var/cache/culvert/nginx
unpack_nginx() {
    unpack "$nginx" nginx
}

fetch() { # WHAT DIRECTORY COMMAND
    [ "$(dpkg --print-architecture)" = amd64 ] && [ ! -d "$2" ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        echo "There is no $1: what needs it is skipped until root has fetched it" >&2
        return 0
    fi
    echo "Fetching $1"
    ("$3") || echo "It cannot be had: what needs it will be skipped" >&2
}

install_missing
case " $* " in *" test "* | *" bench "*)
    fetch "a kernel for virtual machines" "$kernel" unpack_kernel
    ;;
esac
case " $* " in *" test "*)
    fetch nginx "$nginx" unpack_nginx
    fetch DPDK "$dpdk" unpack_dpdk
    ;;
esac
