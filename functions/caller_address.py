"""Which address a request came from."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.types import Scope


def caller_address(scope: Scope, trusted_proxy_count: int) -> IPv4Address | IPv6Address | None:
    """The caller's address, as far as it can be known.

    Each proxy in front appends the address that it was called from to `X-Forwarded-For`, so the caller's is the n-th
    entry from the right, and everything left of it is the caller's own invention.

    Args:
        scope: the ASGI scope of the request.
        trusted_proxy_count: how many proxies in front append to `X-Forwarded-For`; with 0 the header is ignored,
            because anybody can send it.

    Returns:
        The n-th entry from the right; if there is no address, the peer's; None if that is not known either.
    """
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    if trusted_proxy_count:
        entries = forwarded.rsplit(",", trusted_proxy_count)
        entry = _parse(entries[-trusted_proxy_count]) if len(entries) >= trusted_proxy_count else None
        if entry is not None:
            return entry
    peer = str(scope["client"][0]) if scope.get("client") else ""
    # uvicorn puts an entry of the header in the peer's place when the peer is on this machine (FORWARDED_ALLOW_IPS),
    # and the peer is lost. So an address that stands in the header may be the caller's choice, and is nobody's; whoever
    # sends his own address in the header only gets into the bucket of those without one.
    return None if peer in forwarded else _parse(peer)


def _parse(entry: str) -> IPv4Address | IPv6Address | None:
    """An address with or without a port: `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]:443`."""
    text = entry.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return ip_address(text)
    except ValueError:
        return None
