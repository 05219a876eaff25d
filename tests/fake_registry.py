"""A registry in a thread that does what real ones do seldom: cut connections, redirect, lie, ask for tokens."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .oci_layout import Layout, digest_of_bytes

__all__ = ["FakeRegistry", "Reply", "Request", "serve_fake"]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]  #: names in lower case
    body: bytes = b""


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    sent_bytes: int | None = None  #: of the body, and then the connection is cut


Rule = Callable[[Request], "Reply | None"]


@dataclass
class FakeRegistry:
    """``rules`` come first: the first that returns a reply wins. Then what is in the layout."""

    host: str
    layout: Layout
    rules: list[Rule] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def asked(self, part: str) -> list[Request]:
        return [request for request in self.requests if part in request.path]

    def once(self, part: str, reply: Callable[[Request], Reply]) -> None:
        """For the first request only whose path has ``part``."""
        left = [reply]
        self.rules.append(lambda request: left.pop()(request) if left and part in request.path else None)

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        for rule in self.rules:
            if (reply := rule(request)) is not None:
                return reply
        return self.normal(request)

    def normal(self, request: Request) -> Reply:
        kind, _, wanted = request.path.partition("?")[0].rpartition("/")
        digest = wanted if wanted.startswith("sha256:") else self.layout.top["digest"]
        data = self.layout.blobs.get(digest)
        if request.path == "/v2/":
            return Reply()
        if data is None or wanted not in (digest, self.layout.tag):
            return Reply(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')
        if kind.endswith("/manifests"):
            documents = [self.layout.top, *self.layout.manifests.values()]
            (media_type,) = {d["mediaType"] for d in documents if d["digest"] == digest}
            return Reply(
                200, data, {"Content-Type": media_type, "Docker-Content-Digest": digest_of_bytes(data)}
            )
        if part := re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", "")):
            start = int(part[1])
            if start >= len(data):
                return Reply(416)
            return Reply(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        return Reply(200, data)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.registry.answer(Request(self.command, self.path, headers, body))
        self.send_response(reply.status)
        chunked = "Transfer-Encoding" in reply.headers
        length = {} if chunked else {"Content-Length": str(len(reply.body))}
        for name, value in {**length, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        sent = reply.body[: reply.sent_bytes]
        if chunked:
            sent = b"".join(
                b"%x\r\n%b\r\n" % (len(sent[at : at + 1000]), sent[at : at + 1000])
                for at in range(0, len(sent), 1000)
            ) + (b"0\r\n\r\n" if reply.sent_bytes is None else b"")
        self.wfile.write(sent)
        self.close_connection = reply.sent_bytes is not None

    do_GET = do_POST = _answer  # the names that http.server calls

    def log_message(self, *args: Any) -> None:
        """Nothing: the tests look at ``requests``."""


class _Server(ThreadingHTTPServer):
    registry: FakeRegistry
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        # Plain HTTP to those who greet with TLS (a handshake begins with 0x16) is an end, as with servers in Go.
        select.select([request], [], [], 5)
        with contextlib.suppress(OSError):
            if self.tls is not None:
                request = self.tls.wrap_socket(request, server_side=True)
            elif request.recv(1, socket.MSG_PEEK) == b"\x16":
                return
            super().finish_request(request, client_address)
            if self.tls is not None:
                request.close()


@contextlib.contextmanager
def serve_fake(layout: Layout, tls: ssl.SSLContext | None = None) -> Iterator[FakeRegistry]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.registry = FakeRegistry(f"127.0.0.1:{server.server_port}", layout)
    server.tls = tls
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
