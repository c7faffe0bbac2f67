# SPDX-License-Identifier: Apache-2.0
"""An internet with names: a resolver (dnsmasq) and web servers (nginx) that have several of them at
one address, and certificates for all.

    www.ok.test  shared.denied.test  front.other.test      93.184.216.80   2606:2800:220:2::80
    api.ok.test                                            93.184.216.81   2606:2800:220:2::81
    six.ok.test                                                            2606:2800:220:2::81
    deep.api.ok.test                                       93.184.216.82
    notok.test (no part of ok.test)                        93.184.216.83
    git.corp.test                                          10.1.2.3
    many.ok.test: one of two addresses, in turn            93.184.216.84, .85

The test's own /etc/resolv.conf names the guest's resolver, so that clients run in a guest's network
find it."""

import os
import re
import shutil
import ssl
import subprocess
import tempfile

from lab import DEADLINE, INTERNET4, INTERNET6, Skip, check, unpacked, wait_until

DNS4 = "10.0.2.3"
WWW4, WWW6 = "93.184.216.80", "2606:2800:220:2::80"
API4, API6 = "93.184.216.81", "2606:2800:220:2::81"
DEEP4, NOTOK4, CORP4 = "93.184.216.82", "93.184.216.83", "10.1.2.3"
MANY4 = ("93.184.216.84", "93.184.216.85")

HOSTS = {
    "www.ok.test": (WWW4, WWW6), "shared.denied.test": (WWW4, WWW6),
    "front.other.test": (WWW4, WWW6), "api.ok.test": (API4, API6), "six.ok.test": (API6,),
    "deep.api.ok.test": (DEEP4,),
    "notok.test": (NOTOK4,), "git.corp.test": (CORP4,), "inside.ok.test": ("192.168.7.7",),
}
ALIASES = {"alias.ok.test": "www.ok.test", "led.ok.test": "shared.denied.test"}
NAMES = sorted({*HOSTS, *ALIASES, "many.ok.test", "ok.test"})

_NGINX = """
daemon off; user root; pid {folder}/pid; error_log {folder}/error; worker_processes 1;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 80; listen [::]:80 ipv6only=on;
    listen 443 ssl http2; listen [::]:443 ssl http2 ipv6only=on;
    listen 8443 ssl; listen [::]:8443 ssl ipv6only=on;
    ssl_certificate {folder}/pem; ssl_certificate_key {folder}/key;
    ssl_session_cache shared:all:1m;
    location / {{
      return 200 "host=$host sni=$ssl_server_name $server_protocol reused=$ssl_session_reused\\n";
    }}
  }}
}}
"""


class Outside:
    """Lasts as long as the lab: one a program."""

    def __init__(self, lab):
        for program in ("dnsmasq", "openssl", "dig"):
            if not shutil.which(program):
                raise Skip(program + " is missing")
        self.nginx = unpacked("nginx", "nginx")
        if not self.nginx:
            raise Skip("there is no nginx (packaging/install-deps.sh test)")
        self.lab = lab
        self.folder = tempfile.mkdtemp()
        self.log = self.folder + "/queries"
        self.ca = self.folder + "/pem"
        for addresses in HOSTS.values():
            lab.has(*(a + ("/128" if ":" in a else "/32") for a in addresses))
        lab.has(*(a + "/32" for a in MANY4))
        self._make_certificate()
        self._resolv_conf()
        self._start_dnsmasq()
        self._start_nginx()

    def _make_certificate(self):
        names = ",".join("DNS:" + name for name in NAMES)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=outside",
                        "-addext", "subjectAltName=" + names, "-keyout", self.folder + "/key",
                        "-out", self.ca], check=True, capture_output=True)

    def _resolv_conf(self):
        path = self.folder + "/resolv.conf"
        with open(path, "w") as file:
            file.write(f"nameserver {DNS4}\n")
        subprocess.run(["mount", "--bind", path, os.path.realpath("/etc/resolv.conf")], check=True)

    def _start(self, words, environment=None):
        with self.lab.internet:
            return subprocess.Popen(words, env={**os.environ, **(environment or {})},
                                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.PIPE)

    def _start_dnsmasq(self):
        self.dnsmasq = self._start([
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
            "--user=root", "--pid-file=", "--cache-size=0", "--log-queries",
            "--log-facility=" + self.log, "--bind-interfaces", "--local=/test/", "--local-ttl=60",
            f"--listen-address={INTERNET4}", f"--listen-address={INTERNET6}",
            *(f"--host-record={name},{','.join(a)}" for name, a in HOSTS.items()),
            *(f"--cname={name},{target}" for name, target in ALIASES.items()),
            *(f"--host-record=many.ok.test,{a}" for a in MANY4),
            "--dns-rr=www.ok.test,65,000100"])
        wait_until(lambda: self.dnsmasq.poll() is not None or self.lab.host.run(
            "dig", "+short", "+time=1", "+tries=1", "@" + INTERNET4, "up.test")[0] == 0, "dnsmasq")
        check(self.dnsmasq.poll() is None, "dnsmasq ended")

    def _start_nginx(self):
        with open(self.folder + "/nginx.conf", "w") as file:
            file.write(_NGINX.format(folder=self.folder))
        program, environment = self.nginx
        nginx = self._start([program, "-c", self.folder + "/nginx.conf", "-p", self.folder,
                             "-e", self.folder + "/error"], environment)
        wait_until(lambda: nginx.poll() is not None or "443" in self.lab.internet.call(
            "ss", "-Hltn", "sport = :443"), "nginx")
        check(nginx.poll() is None, "nginx ended")

    def asked(self, name):
        """How often the resolver was asked about this name."""
        with open(self.log) as file:
            return len(re.findall(rf"query\[\w+\] {re.escape(name)} ", file.read(), re.I))

    def asked_below(self, name):
        with open(self.log) as file:
            return len(re.findall(rf"query\[\w+\] \S*{re.escape(name)} ", file.read(), re.I))


_made = []


def outside_of(lab):
    """The one of a whole script."""
    if not _made:
        _made.append(Outside(lab))
    return _made[0]


def sandboxed(lab, *options, rules, **keywords):
    """(outside, a guest that may go there by these rules only)"""
    outside = outside_of(lab)
    return outside, lab.guest("--profile", "none", "--dns", INTERNET4, *options, rules=rules,
                              **keywords)


# ---- what clients do ----


def dig(guest, name, kind="A", server=DNS4):
    """(status word, answers' data)"""
    status, out, err = guest.run("dig", "+nocookie", "+time=5", "+tries=1", "@" + server, name,
                                 kind, timeout=DEADLINE * 2)
    check(status == 0, f"dig: {status} {out} {err}")
    rcode = re.search(r"status: (\w+)", out)
    section = re.search(r";; ANSWER SECTION:\n(.*?)\n\n", out + "\n\n", re.S)
    data = [line.split(None, 4)[4] for line in section[1].splitlines()] if section else []
    return rcode[1] if rcode else None, data


def curl(outside, guest, url, *options):
    """(status, stdout)"""
    status, out, err = guest.run("curl", "-sS", "--max-time", str(DEADLINE), "--cacert",
                                 outside.ca, *options, url, timeout=2 * DEADLINE)
    return status, out + err


def client_hello(name, protocols=None):
    """The bytes of a ClientHello for `name` (None: without), record and all."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    out = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()
