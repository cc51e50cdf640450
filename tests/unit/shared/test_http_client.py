"""The real HTTP client against sockets of this machine: what it sends, follows, reads, and gives up on."""

from __future__ import annotations

import asyncio
import gzip
import socket
import sys
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from pyreqwest.exceptions import Cause, RequestError

from shared.http_client import CALLS_PER_HANDOVER, HANDOVER_SECONDS, MANY_CALLS, HttpClient, _translated
from shared.post_client import HttpBodyError, HttpError, HttpResponse, HttpTimeoutError
from tests.faults.system_packages import not_there
from tests.unit.shared.scripted_server import Script, answer, serving

CAP = 10_000
ONE_MIB = 1024 * 1024
LIMITED = b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\n"
FOUR_OF_NINE = LIMITED + b"Content-Length: 9\r\n\r\nfour"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def client_of(url: str, **headers: str) -> HttpClient:
    return HttpClient(url, headers, connect_seconds=20)


async def post(url: str, content: bytes = b"{}", *, seconds: float = 30, **headers: str) -> HttpResponse:
    return await client_of(url).post(content, headers, timeout_seconds=seconds, max_bytes=CAP)


async def again(client: HttpClient, content: bytes = b"{}") -> HttpResponse:
    return await client.post(content, {}, timeout_seconds=30, max_bytes=CAP)


def then(do: Callable[[asyncio.StreamWriter], object], *first: bytes) -> Script:
    async def script(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(first))
        await writer.drain()
        do(writer)

    return script


def endless(piece: bytes, *first: bytes) -> Script:
    """Writes for as long as anything reads it."""

    async def script(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(first))
        for more in repeat(piece * (4096 // len(piece) + 1)):
            writer.write(more)
            await writer.drain()

    return script


def reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def hangs(_: bytes, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


# What is sent


async def test_a_request_arrives_as_it_was_meant() -> None:
    async with serving(answer(b"hello")) as server:
        client = client_of(f"{server.url}/a/b?c=d%20e", Authorization="Bearer t")
        found = await client.post(b'{"x": 1}', {"traceparent": "00-1"}, timeout_seconds=30, max_bytes=CAP)
    assert (found.status, found.content, found.unreadable) == (200, b"hello", None)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a/b?c=d%20e HTTP/1.1\r\n")
    assert body == b'{"x": 1}'
    lines = head.lower().split(b"\r\n")
    host = server.url.removeprefix("http://").encode()
    for line in (b"authorization: bearer t", b"traceparent: 00-1", b"accept-encoding: identity", b"host: " + host):
        assert lines.count(line) == 1


@pytest.mark.parametrize("status", [b"301 Moved", b"303 Other", b"308 Permanent"])
async def test_redirects_are_not_followed_and_cookies_are_not_kept(status: bytes) -> None:
    async with serving(answer(b"", b"Location: /elsewhere", b"Set-Cookie: a=b", status=status)) as server:
        client = client_of(server.url)
        for _ in range(2):
            assert (await again(client)).status == int(status[:3])
    assert len(server.requests) == 2
    assert b"cookie" not in server.requests[1].lower()


async def test_the_environments_proxy_is_used_except_where_it_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(answer(b"proxy")) as proxy, serving(answer(b"itself")) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert (await post("http://engine.example.org/a")).content == b"proxy"
        assert proxy.requests[0].startswith(b"POST http://engine.example.org/a HTTP/1.1\r\n")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert (await post(server.url)).content == b"itself"


@pytest.mark.parametrize("value", ["a\nX-Injected: 1", "a\rb"])
async def test_a_header_of_several_lines_is_not_sent(value: str) -> None:
    async with serving(answer(b"{}")) as server:
        with pytest.raises(ValueError, match="header"):
            await post(server.url, X=value)
    assert server.requests == []


# Status and headers count


UNREADABLE: dict[str, tuple[Script | bytes, type[HttpError]]] = {
    "cut short": (then(asyncio.StreamWriter.close, FOUR_OF_NINE), HttpError),
    "reset": (then(reset, FOUR_OF_NINE), HttpError),
    "silence": (FOUR_OF_NINE, HttpTimeoutError),
    "endless": (endless(b"400\r\n" + b"x" * 1024 + b"\r\n", LIMITED, CHUNKED), HttpBodyError),
    "endless trailers": (endless(b"X-A: b\r\n", LIMITED, CHUNKED, b"1\r\nx\r\n0\r\n"), HttpError),
    "endless chunk extension": (endless(b"x", LIMITED, CHUNKED, b"1;"), HttpError),
    **{
        coding: (LIMITED + f"Content-Encoding: {coding}\r\nContent-Length: 4\r\n\r\nabcd".encode(), HttpBodyError)
        for coding in ("gzip", "br", "zstd", "deflate")
    },
}


@pytest.mark.parametrize(("script", "kind"), UNREADABLE.values(), ids=UNREADABLE)
async def test_status_and_retry_after_count_with_an_unreadable_body(
    script: Script | bytes, kind: type[HttpError]
) -> None:
    async with serving(script) as server:
        found = await post(server.url, seconds=0.5 if kind is HttpTimeoutError else 30)
    assert (found.status, found.header("retry-after"), found.content) == (429, "7", b"")
    assert type(found.unreadable) is kind, "a time-out only where the server is silent"


async def test_a_header_is_found_in_any_case_and_is_ascii() -> None:
    async with serving(answer(b"", b"RETRY-after: 7", b"Retry-After: 8", b"X-Odd: J\xf6rg")) as server:
        found = await post(server.url)
    assert [found.header(name) for name in ("retry-after", "x-odd", "x-none")] == ["7", None, None]


# Bodies


async def test_only_a_body_longer_than_the_cap_is_refused() -> None:
    for body, expected in ((b"x" * CAP, type(None)), (b"x" * (CAP + 1), HttpBodyError)):
        async with serving(answer(body)) as server:
            found = await post(server.url)
        assert isinstance(found.unreadable, expected)
        assert len(found.content) == (0 if found.unreadable else CAP)


SMALL, LARGE = b'{"a": 1}', b"x" * 1_000_000
# Python packs neither br nor zstd: both bodies as `brotli` and `zstd` packed them.
BROTLI = "8b03807b2261223a20317d03", "5b3f428f5f022f1e0b04f2731e00"
ZSTD = (
    "28b52ffd00684100007b2261223a20317d",
    "28b52ffd00684c000008780100fcff391002" + "02001078" * 6 + "03120a78",
)
PACKED = {"gzip": [gzip.compress(SMALL), gzip.compress(LARGE)], "deflate": [zlib.compress(SMALL), zlib.compress(LARGE)]}
PACKED |= {coding: [bytes.fromhex(body) for body in bodies] for coding, bodies in (("br", BROTLI), ("zstd", ZSTD))}


@pytest.mark.parametrize(("coding", "packed"), PACKED.items(), ids=PACKED)
async def test_compressed_bodies_are_read_and_capped_by_unpacked_size(coding: str, packed: list[bytes]) -> None:
    found = []
    for body in packed:
        async with serving(answer(body, f"Content-Encoding: {coding}".encode())) as server:
            found.append(await post(server.url))
    assert len(packed[1]) < CAP
    assert found[0].content == SMALL
    assert str(found[1].unreadable) == f"the body is longer than {CAP} bytes"


async def test_a_body_that_cannot_be_unpacked_is_marked() -> None:
    async with serving(answer(b"no gzip", b"Content-Encoding: gzip")) as server:
        assert str((await post(server.url)).unreadable) == "the body cannot be unpacked: Invalid gzip header"
    async with serving(answer(b"?", b"Content-Encoding: x-gzip")) as server:
        found = await post(server.url)
    assert (found.content, found.header("content-encoding")) == (b"?", "x-gzip")


async def test_a_body_may_follow_an_interim_answer_and_end_with_its_connection() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    for script in (early + answer(b"all of it"), then(asyncio.StreamWriter.close, b"HTTP/1.0 200 OK\r\n\r\nall of it")):
        async with serving(script) as server:
            found = await post(server.url)
        assert (found.status, found.content, found.unreadable) == (200, b"all of it", None)


# What is no answer


NO_ANSWER: dict[str, tuple[Script | bytes, str]] = {
    "endless head": (endless(b"X-A: b\r\n", b"HTTP/1.1 200 OK\r\n"), "message head is too large"),
    "endless header": (endless(b"x", b"HTTP/1.1 200 OK\r\nX-A: "), "message head is too large"),
    "fields": (b"HTTP/1.1 429 Slow\r\n" + b"X: y\r\n" * 101 + b"\r\n", "message head is too large"),
    "no HTTP": (b"220 mail.example.org ESMTP\r\n\r\n", "invalid HTTP version parsed"),
    "reset": (then(reset), "connection closed"),
    "closed": (then(asyncio.StreamWriter.close), "connection closed before message completed"),
}


@pytest.mark.parametrize(("script", "cause"), NO_ANSWER.values(), ids=NO_ANSWER)
async def test_an_invalid_answer_raises_an_error_with_the_cause(script: Script | bytes, cause: str) -> None:
    async with serving(script) as server:
        with pytest.raises(HttpError, match=cause) as caught:
            await post(f"{server.url}/?key=hush")
    assert "hush" not in str(caught.value)
    assert not caught.value.is_connecting


async def test_without_a_connection_nothing_was_sent() -> None:
    async with serving(b"") as server:
        refused = server.url
    with pytest.raises(HttpError, match=r"^no connection") as caught:
        await post(refused)
    assert caught.value.is_connecting


def test_no_cause_that_quotes_the_url_is_said() -> None:
    """Not even where the library has no other cause."""
    cause: Cause = {"message": "error sending request for url (https://hooks.example.org/hush)"}
    assert str(_translated(RequestError("connection error", {"causes": [cause]}), 1)) == "connection error"


@pytest.mark.parametrize("script", [hangs, endless(b"HTTP/1.1 102 Processing\r\n\r\n")], ids=["silence", "interim"])
async def test_a_missing_answer_is_a_time_out_of_answering(script: Script) -> None:
    async with serving(script) as server:
        with pytest.raises(HttpTimeoutError) as caught:
            await post(server.url, seconds=0.5)
    assert not caught.value.is_connecting


async def test_the_thread_pauses_only_while_many_calls_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("shared.http_client.time", SimpleNamespace(sleep=pauses.append))
    async with serving(answer(b"ok")) as server:
        client = client_of(server.url)
        found = []
        for number in (MANY_CALLS - 1, MANY_CALLS - 1 + 2 * CALLS_PER_HANDOVER, MANY_CALLS - 1):
            calls = (client.post(b"", {}, timeout_seconds=30, max_bytes=CAP) for _ in range(number))
            await asyncio.gather(*calls)
            found.append(len(pauses))
    assert (found, set(pauses)) == ([0, 2, 2], {HANDOVER_SECONDS})


async def test_interim_answers_are_not_kept() -> None:
    memory, grown = psutil.Process().memory_info, []

    async def script(_: bytes, writer: asyncio.StreamWriter) -> None:
        before = memory().rss
        for __ in range(ONE_MIB // 16):
            writer.write(b"HTTP/1.1 102 Processing\r\nX-Piece: %s\r\n\r\n" % (b"a" * 1024))
            await writer.drain()
        grown.append(memory().rss - before)
        writer.write(answer(b"late"))

    async with serving(script) as server:
        assert (await post(server.url)).content == b"late"
    assert grown[0] < 32 * ONE_MIB, "of 64 MiB"


async def test_a_connection_time_out_allows_the_next_attempt_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.http_client.FIRST_CONNECT_SECONDS", 0.1)
    async with serving(hangs) as server:
        for seconds, second in ((20, "no answer in time"), (0.05, "no connection within 0.05 s")):
            client = HttpClient(server.url.replace("http", "https"), {}, connect_seconds=seconds)
            for expected in (f"no connection within {min(0.1, seconds):g} s", second):
                with pytest.raises(HttpTimeoutError, match=expected):
                    await client.post(b"{}", {}, timeout_seconds=0.5, max_bytes=CAP)


async def test_an_answer_before_the_body_was_read_is_taken() -> None:
    open_connections = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"", status=b"413 Too Large"))

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await post(f"http://127.0.0.1:{port}", b"x" * 20_000_000)).status == 413
        # From Python 3.12 on the server waits for its connections.
        open_connections[0].transport.abort()


# Connections


async def test_a_connection_is_used_again_unless_the_server_closes_it() -> None:
    async def closes_after_b(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"b", b"Connection: close") if request.endswith(b"b") else answer(b"b"))

    async with serving(closes_after_b) as server:
        client = client_of(server.url)
        for content, connections in ((b"a", 1), (b"a", 1), (b"b", 1), (b"a", 2)):
            assert (await again(client, content)).content == b"b"
            assert server.connections == connections


async def test_a_request_that_reached_the_server_is_not_sent_again() -> None:
    # The race of keep-alive: the server closes the idle connection just as the next request arrives on it.
    async def serves_one(_: bytes, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 1:
            writer.write(answer(b"first"))
        else:
            reset(writer)

    async with serving(serves_one) as server:
        client = client_of(server.url)
        await again(client)
        with pytest.raises(HttpError):
            await again(client)
    assert (len(server.requests), server.connections) == (2, 1)


async def test_bytes_beyond_content_length_do_not_answer_another_request() -> None:
    async with serving(answer(b"its own") + answer(b"forged")) as server:
        client = client_of(server.url)
        for _ in range(5):
            assert (await again(client)).content == b"its own"


async def test_a_request_that_is_cancelled_leaves_the_client_usable() -> None:
    arrived = asyncio.Event()

    async def hangs_for_a(request: bytes, writer: asyncio.StreamWriter) -> None:
        if request.endswith(b"a"):
            arrived.set()
            await asyncio.Event().wait()
        writer.write(answer(b"b"))

    async with serving(hangs_for_a) as server:
        client = client_of(server.url)
        task = asyncio.create_task(again(client, b"a"))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await again(client, b"b")).content == b"b"


async def test_one_client_serves_several_event_loops() -> None:
    async with serving(answer(b"ok")) as server:
        client = client_of(server.url)
        for _ in range(2):
            assert (await asyncio.to_thread(asyncio.run, again(client))).content == b"ok"


CALL = """
import asyncio, sys, time
from shared.http_client import CALLS_PER_HANDOVER, HANDOVER_SECONDS, MANY_CALLS, HttpClient
post = HttpClient(sys.argv[1], {}, connect_seconds=60).post
began = time.monotonic()
content = asyncio.run(post(b"", {}, timeout_seconds=20, max_bytes=9)).content
print(content.decode(), time.monotonic() - began)
"""


@pytest.mark.parametrize("addresses", [("::1", "127.0.0.1"), ("127.0.0.2", "127.0.0.1")], ids=["two families", "one"])
async def test_an_unresponsive_address_does_not_delay_a_responsive_one(
    addresses: tuple[str, str], tmp_path: Path
) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"{address} two.example.org\n" for address in addresses))
    # A command whose names are looked up in that file.
    command = ["unshare", "-rm", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh"]

    async def output(*arguments: str) -> list[str]:
        process = await asyncio.create_subprocess_exec(*command, *arguments, stdout=asyncio.subprocess.PIPE)
        return (await process.communicate())[0].decode().split()

    found = [line for line in await output("getent", "ahosts", "two.example.org") if line in addresses]
    if {*found} != {*addresses}:
        not_there("no user namespaces or no IPv6", "allow both, as on a system that is no container")
    first, second, *_ = dict.fromkeys(found)
    async with serving(answer(b"ok"), host=second) as server:
        address = first, int(server.url.rpartition(":")[2])
        family = socket.AF_INET6 if ":" in first else socket.AF_INET
        # A full backlog: to connect is neither accepted nor refused.
        with socket.create_server(address, family=family, backlog=0), ExitStack() as waiting:
            for _ in range(4):
                client = waiting.enter_context(socket.socket(family))
                client.setblocking(False)
                client.connect_ex(address)
            content, seconds = await output(sys.executable, "-c", CALL, f"http://two.example.org:{address[1]}")
            # Half of the first time to connect at most, and half of all of it if the first attempt had that.
            assert (content, float(seconds) < 1) == ("ok", True)
