#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Shows culvert's main job on real traffic, without the internet: demo.sh [PATH-OF-CULVERT].
# Works as root and as an ordinary user. Exits 0 if everything was as it says.

set -u
here=$(dirname "$0")
culvert=${1:-culvert}
failures=0

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }

# A command as one would type it.
show() {
    printf '  $'
    for word in "$@"; do
        case $word in
        "$culvert") printf ' culvert' ;;
        *[!A-Za-z0-9_./:=@-]*) printf " '%s'" "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
}

# expect ok|fails COMMAND...: runs it, shows what it printed and how long it took.
expect() {
    wanted=$1
    shift
    show "$@"
    begin=$(date +%s%N)
    if "$@" >"$output" 2>&1; then seen=ok; else seen=fails; fi
    end=$(date +%s%N)
    sed 's/^/    /' "$output"
    printf '    (%s after %d ms)\n' "$seen" $(((end - begin) / 1000000))
    if [ "$seen" != "$wanted" ]; then
        printf '    UNEXPECTED: "%s" was to be seen here\n' "$wanted"
        failures=$((failures + 1))
    fi
}

command -v "$culvert" >/dev/null || { echo "demo: $culvert: not found; build it first: make" >&2; exit 1; }
command -v curl >/dev/null || { echo "demo: curl is missing; apt install curl" >&2; exit 1; }

ports=$(mktemp)
output=$(mktemp)
python3 "$here/demo_servers.py" >"$ports" &
servers=$!
trap 'kill $servers 2>/dev/null; rm -f "$ports" "$output"' EXIT INT TERM
tries=0
until [ -s "$ports" ]; do
    tries=$((tries + 1))
    [ $tries -gt 100 ] && { echo "demo: the servers did not start" >&2; exit 1; }
    sleep 0.05
done
read -r web dns ipv6 <"$ports"

say "1. A command gets a network of its own: its interface, its addresses, its resolver."
expect ok "$culvert" run --ipv6=on sh -c 'ip -brief address; cat /etc/resolv.conf'

say "2. Allowed: a fetch from a server on this host's loopback, which the guest knows as 10.0.2.2."
expect ok "$culvert" run --rule "allow tcp to host port $web" \
    curl -sS --max-time 5 "http://10.0.2.2:$web/"

if [ "$ipv6" = 1 ]; then
    say "3. The same over IPv6."
    expect ok "$culvert" run --ipv6=on --rule "allow tcp to host port $web" \
        curl -sS --max-time 5 "http://[fd63:756c:7665::2]:$web/"
else
    say "3. (No IPv6 loopback on this host: the same over IPv6 is left out.)"
fi

say "4. Denied, because the default policy keeps the host to itself: it fails at once, no timeout."
expect fails "$culvert" run curl -sS --max-time 5 "http://10.0.2.2:$web/"

say "5. Denied by a rule of one's own, and the counter that says so."
expect fails "$culvert" run -v --rule "deny tcp to any port 443" \
    curl -sS --max-time 5 https://198.51.100.1/

say "6. A name: asked at 10.0.2.3, which forwards to a name server on this host."
expect ok "$culvert" run --dns "127.0.0.1:$dns" getent ahostsv4 hello.demo.test

only="allow tcp to shop.demo.test port $web"

say "7. An allow-list of names: shop.demo.test and nothing else (a name of ours, which leads to this host)."
expect ok "$culvert" run --profile none --dns-host shop.demo.test=10.0.2.2 --rule "$only" \
    curl -sS --max-time 5 "http://shop.demo.test:$web/"

say "8. Another name at the same address is refused once it is said, and the summary says what would allow it."
expect fails "$culvert" run --profile none --dns-host shop.demo.test=10.0.2.2 --rule "$only" \
    curl -sS --max-time 5 -H 'Host: other.demo.test' "http://shop.demo.test:$web/"

say "9. Even as root, the command holds no capability and cannot change its network."
expect fails "$culvert" run ip link set eth0 down

echo
if [ $failures -gt 0 ]; then
    echo "demo: $failures of these were not as they should be"
    exit 1
fi
echo "demo: everything was as it should be"
