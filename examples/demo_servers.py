#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The host's side of demo.sh: a web server on 127.0.0.1 and ::1, and a name server on 127.0.0.1 that
knows one name. Prints "WEB-PORT DNS-PORT IPV6(0|1)" and serves until it is killed."""

import socket
import socketserver
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = b"\x05hello\x04demo\x04test\x00"
ADDRESS = "203.0.113.7"


class Web(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"hello from the host, to {self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Web4(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A connection that culvert resets is part of the show."""


class Web6(Web4):
    address_family = socket.AF_INET6


class Names(socketserver.BaseRequestHandler):
    """Answers A for NAME; every other name does not exist (RFC 1035, 4.1)."""

    def handle(self):
        query, reply_socket = self.request
        end = query.find(b"\x00", 12) + 5
        if len(query) < 17 or end < 17:
            return
        question = query[12:end]
        known = question[:-4].lower() == NAME
        answer = b""
        if known and question[-4:] == b"\x00\x01\x00\x01":
            answer = b"\xc0\x0c\x00\x01\x00\x01" + struct.pack("!IH", 60, 4) \
                     + socket.inet_aton(ADDRESS)
        flags = 0x8580 if known else 0x8583
        header = query[:2] + struct.pack("!HHHHH", flags, 1, 1 if answer else 0, 0, 0)
        reply_socket.sendto(header + question + answer, self.client_address)


def serve(server):
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def main():
    web = serve(Web4(("127.0.0.1", 0), Web))
    names = serve(socketserver.UDPServer(("127.0.0.1", 0), Names))
    try:
        serve(Web6(("::1", web), Web))
        ipv6 = 1
    except OSError:
        ipv6 = 0
    print(web, names, ipv6, flush=True)
    threading.Event().wait()


main()
