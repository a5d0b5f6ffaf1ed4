"""Fetch images from URLs on allowed hosts, never from addresses of the server's own network."""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from conditional_detr.serve.refusals import Refusal, invalid, too_large

Resolve = Callable[[str, int], list[str]]
_AT_ONCE = 2**16  # bytes read at a time
# Addresses that stand for IPv4 addresses, which may be private: NAT64, Teredo, 6to4.
_TRANSLATED = [ipaddress.IPv6Network(each) for each in ("64:ff9b::/32", "2001::/32", "2002::/16")]


def addresses_of(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host. Raises ``OSError``."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def allowed(host: str, hosts: Sequence[str]) -> bool:
    """Tell whether a host is one of ``hosts``, or below a domain that is given as ``*.domain``."""
    host = host.lower().rstrip(".")
    return any(host == each.lower() or (each.startswith("*.") and host.endswith(each[1:].lower())) for each in hosts)


def fetch(url: str, hosts: Sequence[str], *, max_bytes: int, deadline: float, resolve: Resolve = addresses_of) -> bytes:
    """Return what a URL holds. Redirects are not followed. deadline: by ``time.monotonic``.

    The connection goes to the address that was checked, so a name that changes its address in between gains nothing. Raises ``Refusal``
    for a host that is not allowed, an address that is not public, and an answer that is too large, too late or no success.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise invalid(f"url {url!r} is not a URL ({error}); correct it") from error
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise invalid(f"url {url!r} is not of the form https://host/path; correct it")
    if not allowed(host, hosts):
        raise Refusal(403, "host_not_allowed", f"this server fetches no images from {host!r}; send the image itself")
    try:
        found = resolve(host, port)
    except OSError as error:
        raise invalid(f"host {host!r} is not known ({error.strerror or error}); correct the url") from error
    if not found or not all(_is_public(each) for each in found):
        raise Refusal(403, "host_not_allowed", f"{host!r} is not on the public internet; send the image itself")
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    try:
        return _get(parts.scheme, host, port, found[0], target, max_bytes, deadline)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise invalid(f"{url} can't be fetched ({error or type(error).__name__}); send the image itself") from error


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if any(found in network for network in _TRANSLATED):
        return False
    return found.is_global and not found.is_multicast


def _get(scheme: str, host: str, port: int, address: str, target: str, max_bytes: int, deadline: float) -> bytes:
    left = max(0.001, deadline - time.monotonic())
    connection = http.client.HTTPConnection(host, port)
    connection.sock = socket.create_connection((address, port), timeout=left)
    try:
        if scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(connection.sock, server_hostname=host)
        connection.request("GET", target, headers={"Accept": "image/*"})
        response = connection.getresponse()
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        content = bytearray()
        while part := response.read(_AT_ONCE):
            content += part
            if len(content) > max_bytes:
                raise too_large(f"the image at a url is larger than {max_bytes} bytes; scale it down")
            if time.monotonic() > deadline:
                raise TimeoutError("it takes too long")
        return bytes(content)
    finally:
        connection.close()
