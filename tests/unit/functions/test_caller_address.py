"""The caller's address is the peer's, or what the trusted proxies say; never what the caller says."""

from __future__ import annotations

import pytest
from starlette.types import Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from functions.caller_address import caller_address

PEER = "198.51.100.7"
CALLER = "203.0.113.9"


def scope_of(*forwarded: str, peer: str | None = PEER) -> Scope:
    return {
        "type": "http",
        "client": None if peer is None else (peer, 50000),
        "headers": [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded],
    }


def found(scope: Scope, trusted_proxy_count: int) -> str | None:
    address = caller_address(scope, trusted_proxy_count)
    return None if address is None else str(address)


@pytest.mark.parametrize("forwarded", [[], [CALLER], [f"{CALLER}, 10.0.0.1"], ["nonsense"]])
def test_without_a_trusted_proxy_it_is_the_peer_whatever_the_header_says(forwarded: list[str]) -> None:
    assert found(scope_of(*forwarded), 0) == PEER


@pytest.mark.parametrize(
    ("forwarded", "count"),
    [
        ([CALLER], 1),
        ([f"1.1.1.1, 2.2.2.2, {CALLER}"], 1),
        ([f"1.1.1.1,{CALLER},10.0.0.1"], 2),
        ([f"{CALLER}, 10.0.0.1"], 2),
        (["1.1.1.1", CALLER], 1),
        ([f"1.1.1.1, {CALLER}", "10.0.0.1"], 2),
        ([f"garbage,, {CALLER} "], 1),
        ([f"{CALLER}:443"], 1),
        ([f"{CALLER}, 1, 2, 3, 4, 5, 6, 7, 8, 9"], 10),
    ],
)
def test_each_trusted_proxy_is_one_entry_from_the_right(forwarded: list[str], count: int) -> None:
    assert found(scope_of(*forwarded), count) == CALLER


@pytest.mark.parametrize("entry", ["2001:db8::5", "[2001:db8::5]", "[2001:db8::5]:443", " 2001:DB8::5"])
def test_an_entry_may_be_ipv6_with_or_without_a_port(entry: str) -> None:
    assert found(scope_of(entry), 1) == "2001:db8::5"


@pytest.mark.parametrize(
    ("forwarded", "count"),
    [
        ([], 1),
        ([""], 1),
        ([CALLER], 2),
        ([f"{CALLER}, unknown"], 1),
        ([f"{CALLER},"], 1),
        ([f"{CALLER}, _hidden"], 1),
        ([f"{CALLER}, 1.2.3"], 1),
        ([f"{CALLER}, 1.2.3.4.5"], 1),
        ([f"{CALLER}, [nonsense]"], 1),
        ([f"{CALLER}, ["], 1),
        ([f"{CALLER}, \xff"], 1),
        ([f"{CALLER}, " + "1" * 60_000], 1),
        ([f"{CALLER}, " + "::" * 30_000], 1),
    ],
)
def test_an_entry_that_is_missing_or_no_address_falls_back_to_the_peer(forwarded: list[str], count: int) -> None:
    assert found(scope_of(*forwarded), count) == PEER


@pytest.mark.parametrize("peer", [None, "", "testclient", "/run/socket"])
def test_a_peer_without_an_address_has_none(peer: str | None) -> None:
    assert found(scope_of(peer=peer), 0) is None
    assert found(scope_of("unknown", peer=peer), 1) is None
    assert found(scope_of(CALLER, peer=peer), 1) == CALLER


async def behind_uvicorn(scope: Scope, trusted_proxy_count: int, *, trusted_peers: str = "127.0.0.1,::1") -> str | None:
    """What is found under uvicorn, which reads the header too, for peers that it trusts (by default those)."""
    addresses: list[str | None] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        addresses.append(found(scope, trusted_proxy_count))

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    async def send(message: Message) -> None:
        raise AssertionError("nothing is answered")

    await ProxyHeadersMiddleware(application, trusted_peers)(scope, receive, send)  # type: ignore[arg-type]
    return addresses[0]


@pytest.mark.parametrize("chosen", ["1.1.1.1", "1.1.1.1:80", "[2001:db8::5]:80", "2001:db8::5", "9.9.9.9, 1.1.1.1"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
async def test_a_local_caller_cannot_choose_an_address_although_uvicorn_takes_it_over(peer: str, chosen: str) -> None:
    assert await behind_uvicorn(scope_of(chosen, peer=peer), 0) is None
    assert await behind_uvicorn(scope_of(chosen, peer=peer), 5) is None


async def test_a_caller_cannot_choose_an_address_where_uvicorn_trusts_everybody() -> None:
    assert await behind_uvicorn(scope_of("1.1.1.1, 2.2.2.2"), 0, trusted_peers="*") is None


async def test_a_proxy_on_the_same_machine_is_believed_when_it_is_trusted() -> None:
    assert await behind_uvicorn(scope_of(f"1.1.1.1, {CALLER}", peer="127.0.0.1"), 1) == CALLER


async def test_a_local_caller_who_sends_no_header_has_his_own_address() -> None:
    assert await behind_uvicorn(scope_of(peer="127.0.0.1"), 0) == "127.0.0.1"
