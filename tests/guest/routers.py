# SPDX-License-Identifier: Apache-2.0
"""A path of two routers behind the lab's host, for what only routers say: time exceeded, packet too
big, unreachable.

    host 93.184.216.2 ── internet .34, the first router ──narrow── second router ── far 151.101.1.7

The narrow link's MTU is the test's to choose."""

from lab import INTERNET4, INTERNET6, Network, wait_until

FIRST4, FIRST6 = INTERNET4, INTERNET6
SECOND4, SECOND6 = "129.250.2.2", "2001:418:2::2"
FAR4, FAR6 = "151.101.1.7", "2a04:4e42:1::7"
NEAR_SECOND4, NEAR_SECOND6 = "129.250.2.1", "2001:418:2::1"
BEFORE_FAR4, BEFORE_FAR6 = "151.101.1.1", "2a04:4e42:1::1"
NET4, NET6 = "151.101.1.0/24", "2a04:4e42:1::/64"


class Path:
    """Lasts as long as the lab: one a program."""

    def __init__(self, lab):
        self.lab = lab
        self.second = Network.new()
        self.far = Network.new()
        for network in (self.second, self.far):
            network.sysctl("net.ipv6.conf.default.accept_dad", 0)
            network.ip("link set lo up")
        self._join(lab.internet, "narrow0", NEAR_SECOND4, NEAR_SECOND6,
                   self.second, "narrow1", SECOND4, SECOND6)
        self._join(self.second, "wide0", BEFORE_FAR4, BEFORE_FAR6, self.far, "wide1", FAR4, FAR6)
        for network in (lab.internet, self.second, self.far):
            network.sysctl("net.ipv4.ip_forward", 1)
            network.sysctl("net.ipv6.conf.all.forwarding", 1)
            network.sysctl("net.ipv4.icmp_ratemask", 0)  # no limit, for no type
            network.sysctl("net.ipv6.icmp.ratelimit", 0)
        self._route()
        wait_until(lambda: lab.host.run("ping", "-c1", "-W1", FAR4)[0] == 0 and
                   lab.host.run("ping", "-c1", "-W1", FAR6)[0] == 0, "the path carries packets")

    @staticmethod
    def _join(here, name, address4, address6, there, other_name, other4, other6):
        with there:
            here.call("ip", "link", "add", name, "type", "veth", "peer", "name", other_name,
                      "netns", f"/proc/self/fd/{there.fd}", pass_fds=[there.fd])
        here.ip(f"link set {name} up", f"addr add {address4}/24 dev {name}",
                f"addr add {address6}/64 dev {name} nodad")
        there.ip(f"link set {other_name} up", f"addr add {other4}/24 dev {other_name}",
                 f"addr add {other6}/64 dev {other_name} nodad")

    def _route(self):
        self.lab.internet.ip(f"route add {NET4} via {SECOND4}",
                             f"-6 route add {NET6} via {SECOND6}")
        self.second.ip(f"route add default via {NEAR_SECOND4}",
                       f"-6 route add default via {NEAR_SECOND6}")
        self.far.ip(f"route add default via {BEFORE_FAR4}",
                    f"-6 route add default via {BEFORE_FAR6}")

    def narrow(self, mtu):
        """The MTU of the link between the routers; what was learnt about paths is forgotten."""
        self.lab.internet.ip(f"link set narrow0 mtu {mtu}")
        self.second.ip(f"link set narrow1 mtu {mtu}")
        for network in (self.lab.host, self.far):
            network.call("ip", "route", "flush", "cache")
            network.call("ip", "-6", "route", "flush", "cache")
