"""Requests to one registry: connections, redirects, retries, and answers of bounded size.

This module alone imports urllib3, and only a pull imports it: the package comes with the extra ``images``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, InvalidHeader, SSLError
from urllib3.response import BaseHTTPResponse

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.manifest import MAX_DOCUMENT_BYTES
from pytest_isolate.units import quoted

__all__ = ["Answer", "Transport", "asked_pause_s", "is_loopback"]

PAUSES_S = (0.5, 1.0, 2.0)  #: between tries
LONGEST_PAUSE_S = 30.0  #: that a registry may ask for
CONNECT_S, READ_S, PROBE_S = 10.0, 60.0, 5.0
CONNECTIONS = 8  # kept for the next request, to one host
MAX_REDIRECTS = 5
CHUNK_BYTES = 2**16
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Answer:
    """``body`` is whole. Of a blob it is empty, and ``chunks`` has it: they end where the connection does,
    which may be too early."""

    status: int
    headers: Mapping[str, str]  #: whatever the case of their names
    challenges: tuple[str, ...]  #: of all headers WWW-Authenticate
    body: bytes = b""
    chunks: Iterator[bytes] = field(default_factory=lambda: iter(()))


class Transport:
    """Used by several threads. ``host`` is of the form HOST or HOST:PORT. Methods raise ImageError."""

    def __init__(self, host: str, *, may_be_plain: bool) -> None:
        self.host = host
        self._base: str | None = None if may_be_plain else f"https://{host}"
        self._lock = threading.Lock()  # of what follows
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self._open: set[BaseHTTPResponse] = set()
        self._stopped = threading.Event()

    @property
    def base_url(self) -> str:
        """https, unless the registry may be asked without it and speaks none."""
        if self._base is None:
            self._base = f"{'https' if self._speaks_tls() else 'http'}://{self.host}"
        return self._base

    def stop(self) -> None:
        """End what other threads wait for, and refuse what they ask for from now on."""
        self._stopped.set()
        with self._lock:
            for response in self._open:
                with contextlib.suppress(ValueError, RuntimeError, OSError):  # it has just ended by itself
                    response.shutdown()
            for manager in self._pools.values():
                for key in manager.pools.keys():  # noqa: SIM118 - it cannot be iterated over
                    manager.pools[key].close()  # manager.clear() leaves that to the garbage collector

    def wait(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise ImageError(f"pulling from {self.host} was stopped")

    def is_safe(self, url: str) -> bool:
        """Whether what goes there is as safe as it is on its way to the registry itself."""
        scheme = urlsplit(url).scheme
        return scheme == "https" or (scheme == "http" and self.base_url.startswith("http:"))

    @contextlib.contextmanager
    def get(
        self, url: str, headers: Mapping[str, str], authorization: str | None, *, is_blob: bool = False
    ) -> Iterator[Answer]:
        """Redirects are followed, and only the host of ``url`` sees the authorization."""
        with contextlib.ExitStack() as stack:
            yield self._patiently(
                lambda: self._follow(url, headers, authorization, stack if is_blob else None)
            )

    def exchange(self, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None = None) -> Answer:
        """GET, or POST of a form. A redirect is no answer: credentials are not carried around."""
        if form is None:
            return self._patiently(lambda: _read(self._send("GET", url, headers)))
        headers = {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(form).encode()
        return self._patiently(lambda: _read(self._send("POST", url, headers, body=body)))

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        """Ask again, a few times, what was not answered for a reason that can go away."""
        for pause_s in PAUSES_S:
            self.wait(0)
            try:
                answer = ask()
            except SSLError:
                break
            except HTTPError:
                self.wait(pause_s)
                continue
            asked_s = asked_pause_s(answer)
            if answer.status not in _AGAIN or asked_s > LONGEST_PAUSE_S:
                return answer
            self.wait(max(pause_s, asked_s))
        try:
            return ask()
        except HTTPError as error:
            raise ImageError(f"cannot pull from {self.host}: {_reason(error)}") from None

    def _follow(
        self,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        blob: contextlib.ExitStack | None,
    ) -> Answer:
        own = urlsplit(url)
        for _ in range(MAX_REDIRECTS + 1):
            parts = urlsplit(url)
            is_own = (parts.scheme, parts.netloc) == (own.scheme, own.netloc)
            sent = {**headers, "Authorization": authorization} if is_own and authorization else headers
            response = self._send("GET", url, sent)
            location = response.get_redirect_location()
            if not location:
                if response.status == 401 and not is_own:
                    response.close()
                    raise ImageError(f"{self.host} redirects to {parts.hostname}, which asks for a login")
                if blob is None or response.status not in (200, 206):
                    return _read(response)
                blob.callback(self._forget, response)
                return self._stream(response)
            response.close()
            url = self._target(url, location)
        raise ImageError(f"{self.host} redirects more than {MAX_REDIRECTS} times")

    def _target(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location)
            if urlsplit(target).hostname and self.is_safe(target):
                return target
        except ValueError:
            pass  # no URL at all: refused below
        # Without its query, which holds what gives access to a blob.
        raise ImageError(
            f"{self.host} redirects to {quoted(location.partition('?')[0])}, which is no https URL"
        )

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        patience_s: float = READ_S,
    ) -> BaseHTTPResponse:
        """Raises HTTPError."""
        return self._pool(url).request(
            method,
            url,
            # Of bytes compressed on the way neither digest nor size would be right.
            headers={"User-Agent": "pytest-isolate", "Accept-Encoding": "identity", **headers},
            body=body,
            redirect=False,
            retries=False,
            preload_content=False,
            timeout=urllib3.Timeout(connect=min(CONNECT_S, patience_s), read=patience_s),
        )

    def _pool(self, url: str) -> urllib3.PoolManager:
        """By way of the proxy that the environment names (HTTPS_PROXY, NO_PROXY), and never to loopback."""
        parts = urlsplit(url)
        host, proxy = parts.netloc.rpartition("@")[2], None
        if not is_loopback(host) and not urllib.request.proxy_bypass(host):
            proxies = urllib.request.getproxies()
            proxy = proxies.get(parts.scheme) or proxies.get("all")
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = _new_pool(proxy)
            return self._pools[proxy]

    def _speaks_tls(self) -> bool:
        try:
            self._send("GET", f"https://{self.host}/v2/", {}, patience_s=PROBE_S).close()
        except SSLError as error:
            return "CERTIFICATE_VERIFY_FAILED" in str(error)  # it does, and the request itself will say this
        except HTTPError:
            return False
        return True

    def _stream(self, response: BaseHTTPResponse) -> Answer:
        def chunks() -> Iterator[bytes]:
            # The caller counts the bytes.
            with contextlib.suppress(HTTPError, OSError):
                while chunk := response.read1(CHUNK_BYTES, decode_content=False):
                    yield chunk

        with self._lock:
            self._open.add(response)
        self.wait(0)  # or stop() came before it could know of this one
        return Answer(response.status, response.headers, (), chunks=chunks())

    def _forget(self, response: BaseHTTPResponse) -> None:
        with self._lock:
            self._open.discard(response)
        response.close()  # and the connection, on which the rest of the blob may still come


def _read(response: BaseHTTPResponse) -> Answer:
    """Raises HTTPError, and ImageError for one that is too long."""
    try:
        body = b""
        # To the end that is empty: only there urllib3 notices that the connection was cut.
        while chunk := response.read(MAX_DOCUMENT_BYTES, decode_content=False):
            body += chunk
            if len(body) > MAX_DOCUMENT_BYTES:
                raise ImageError(
                    f"the registry answers with more than {MAX_DOCUMENT_BYTES} bytes of a document"
                )
        challenges = response.headers.getlist("WWW-Authenticate")
        return Answer(response.status, response.headers, tuple(challenges), body)
    except BaseException:
        response.close()
        raise


def _new_pool(proxy: str | None) -> urllib3.PoolManager:
    if proxy is None:
        return urllib3.PoolManager(maxsize=CONNECTIONS)
    auth = urllib3.util.parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=auth) if auth else None
    return urllib3.ProxyManager(proxy, maxsize=CONNECTIONS, proxy_headers=headers)


def asked_pause_s(answer: Answer) -> float:
    """How long to wait for the next request, by the header Retry-After; 0 without."""
    value = answer.headers.get("Retry-After")
    try:
        return urllib3.Retry().parse_retry_after(value) if value else 0.0
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0


def _reason(error: HTTPError) -> str:
    """Of ``HTTPSConnectionPool(host='h', port=443): Failed to …: [Errno 111] Connection refused`` the end."""
    text = " ".join(str(error).split()).rpartition(": ")[2][:200]
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return f"its certificate is not trusted ({text}); let SSL_CERT_FILE name a file with its authority"
    return f"{text}; an image that was pulled before takes no network (pytest-isolate image pull)"


def is_loopback(host: str) -> bool:
    """Whether ``HOST[:PORT]`` is this machine, whatever the resolver says."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
