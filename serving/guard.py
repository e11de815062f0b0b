"""Refuse requests that the page itself would not send: from other sites and for other hosts.

A web page from anywhere can send requests to a server on the visitor's own machine, and with a
host name whose address it changes (DNS rebinding) it could read the answers, too.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """ASGI middleware that answers 400 or 403 to such requests, and adds HEADERS to all answers."""

    def __init__(self, app: "ASGIApp", hosts: Iterable[str]) -> None:
        """`hosts` are the names under which the page may be opened, besides IP addresses."""
        self._app = app
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            return
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]]
        refusal = self._refusal(scope["method"], scope["path"], headers)

        async def send_with_headers(message: "Message") -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        if refusal is None:
            await self._app(scope, receive, send_with_headers)
            return
        status, text = refusal
        body = f"{text}\n".encode()
        about = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"),
                 (b"content-length", str(len(body)).encode())]  # fmt: skip
        await send_with_headers({"type": "http.response.start", "status": status, "headers": about})
        await send({"type": "http.response.body", "body": body})

    def _refusal(
        self, method: str, path: str, headers: list[tuple[str, str]]
    ) -> tuple[int, str] | None:
        hosts = [value for name, value in headers if name == "host"]
        if len(hosts) != 1 or not self._is_known(hosts[0]):
            return 400, (
                "This page is not served under this name. Open it by its IP address or as "
                "localhost, or start the server with --host_name NAME."
            )
        if is_from_elsewhere(method, path, dict(headers), hosts[0]):
            return 403, "Requests from other sites are refused."
        return None

    def _is_known(self, host: str) -> bool:
        match = HOST.fullmatch(host)
        if match is None:
            return False
        name = match["name"].lower().rstrip(".")
        return name in self._hosts or is_ip_address(name.strip("[]"))


def is_ip_address(name: str) -> bool:
    """Whether a host is an address: no other site can make its own name point to it."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_from_elsewhere(method: str, path: str, headers: Mapping[str, str], host: str) -> bool:
    """Whether another site sent a request, as far as browsers say so: Origin (RFC 6454) and
    Sec-Fetch-Site (Fetch Metadata). The page itself may be opened by a link, but not in a frame."""
    site = headers.get("sec-fetch-site", "same-origin")
    if method in ("GET", "HEAD"):
        opened = (
            headers.get("sec-fetch-mode", "navigate"),
            headers.get("sec-fetch-dest", "document"),
        )
        is_link = path == "/" and opened == ("navigate", "document")
        return site not in ("same-origin", "none") and not is_link
    origin = headers.get("origin")
    if origin is not None:
        try:
            if urlsplit(origin).netloc.lower() != host.lower():
                return True
        except ValueError:
            return True
    return site != "same-origin"


def own_names(address: str, more: Iterable[str]) -> set[str]:
    """Return the host names of a server that listens on `address`: for the loopback interface
    localhost, for others also the name of this machine."""
    names = {"localhost", *more}
    try:
        is_loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        is_loopback = address == "localhost"
    if not is_loopback:
        name = socket.gethostname().lower()
        names |= {name, f"{name.partition('.')[0]}.local"}
        if not is_ip_address(address):
            names.add(address)
    return names
