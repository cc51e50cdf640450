"""The real HTTP client against sockets of this machine: what it sends, follows, reads, and gives up on."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from itertools import repeat

import pytest

from shared.http_client import HttpClient
from shared.post_client import HttpBodyError, HttpError, HttpResponse, HttpTimeoutError
from tests.unit.shared.scripted_server import Script, serving

CAP = 10_000
LIMITED = b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


async def post(
    url: str | HttpClient, content: bytes = b"{}", *, seconds: float = 30, headers: dict[str, str] | None = None
) -> HttpResponse:
    client = HttpClient(url, {}, connect_seconds=20) if isinstance(url, str) else url
    return await client.post(content, headers or {}, timeout_seconds=seconds, max_bytes=CAP)


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]) + b"\r\n\r\n" + body


def then(do: Callable[[asyncio.StreamWriter], object], *first: bytes) -> Script:
    async def script(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(first))
        await writer.drain()
        do(writer)

    return script


def abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def endless(piece: bytes, *first: bytes) -> Script:
    """Writes for as long as anything reads it."""

    async def script(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(first))
        for more in repeat(piece * (4096 // len(piece) + 1)):
            writer.write(more)
            await writer.drain()

    return script


async def hangs(_: bytes, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


# What is sent


async def test_a_request_arrives_as_it_was_meant() -> None:
    async with serving(answer(b"hello")) as server:
        client = HttpClient(f"{server.url}/a/b?c=d%20e", {"Authorization": "Bearer t"}, connect_seconds=20)
        found = await post(client, b'{"x": 1}', headers={"traceparent": "00-1"})
    assert (found.status, found.content, found.unreadable) == (200, b"hello", None)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a/b?c=d%20e HTTP/1.1\r\n")
    assert body == b'{"x": 1}'
    host = server.url.removeprefix("http://").encode()
    for line in (b"authorization: bearer t", b"traceparent: 00-1", b"accept-encoding: identity", b"host: " + host):
        assert head.lower().split(b"\r\n").count(line) == 1


async def test_a_redirect_is_not_followed_and_no_cookie_kept() -> None:
    elsewhere = answer(b"", b"Location: /elsewhere", b"Set-Cookie: a=b", status=b"307 Temporary")
    async with serving(elsewhere) as server:
        client = HttpClient(server.url, {}, connect_seconds=20)
        assert [(await post(client)).status for _ in range(2)] == [307, 307]
    assert len(server.requests) == 2
    assert b"cookie" not in server.requests[1].lower()


# What is read


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(then(asyncio.StreamWriter.close, LIMITED, b"Content-Length: 9\r\n\r\nfour"), id="cut short"),
        pytest.param(then(abort, LIMITED, b"Content-Length: 9\r\n\r\nfour"), id="reset"),
        pytest.param(endless(b"400\r\n" + b"x" * 1024 + b"\r\n", LIMITED, CHUNKED), id="endless"),
        pytest.param(endless(b"X-A: b\r\n", LIMITED, CHUNKED, b"1\r\nx\r\n0\r\n"), id="endless trailers"),
        pytest.param(LIMITED + b"Content-Length: 10001\r\n\r\n" + b"x" * 10001, id="one byte too long"),
        pytest.param(LIMITED + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd", id="no gzip"),
    ],
)
async def test_a_status_counts_although_the_body_cannot_be_read(script: Script | bytes) -> None:
    async with serving(script) as server:
        found = await post(server.url)
    assert (found.status, found.header("retry-after"), found.content) == (429, "7", b"")
    assert found.unreadable is not None


async def test_the_cap_counts_unpacked_bytes() -> None:
    for body, headers, content in (
        (b"x" * CAP, [], b"x" * CAP),
        (b"x" * (CAP + 1), [], None),
        (gzip.compress(b'{"a": 1}'), [b"Content-Encoding: gzip"], b'{"a": 1}'),
        (gzip.compress(b"x" * 1_000_000), [b"Content-Encoding: gzip"], None),
        (b"?", [b"Content-Encoding: x-gzip"], b"?"),
    ):
        async with serving(answer(body, *headers)) as server:
            found = await post(server.url)
        assert found.content == (content or b"")
        assert isinstance(found.unreadable, HttpBodyError) is (content is None)


# What is no answer


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        pytest.param(endless(b"X-A: b\r\n", b"HTTP/1.1 200 OK\r\n"), "message head is too large", id="endless head"),
        pytest.param(b"220 mail.example.org ESMTP\r\n\r\n", "invalid HTTP version parsed", id="no HTTP"),
        pytest.param(then(abort), "connection closed", id="reset"),
    ],
)
async def test_a_broken_answer_is_an_error_that_says_why(script: Script | bytes, cause: str) -> None:
    async with serving(script) as server:
        with pytest.raises(HttpError, match=cause):
            await post(server.url)


async def test_an_answer_that_comes_too_late_is_a_timeout() -> None:
    async with serving(hangs) as server:
        with pytest.raises(HttpTimeoutError) as caught:
            await post(server.url, seconds=0.5)
    assert not caught.value.is_connecting
    async with serving(LIMITED + b"Content-Length: 9\r\n\r\nfour") as server:
        found = await post(server.url, seconds=0.5)
    assert (found.status, found.header("retry-after")) == (429, "7")
    assert isinstance(found.unreadable, HttpTimeoutError)


async def test_after_a_slow_connection_the_next_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.http_client.FIRST_CONNECT_SECONDS", 0.1)
    async with serving(hangs) as server:
        client = HttpClient(server.url.replace("http", "https"), {}, connect_seconds=20)
        for expected in ("no connection within 0.1 s", "no answer in time"):
            with pytest.raises(HttpTimeoutError, match=expected):
                await post(client, seconds=0.5)


async def test_an_address_without_a_server_is_named_without_its_url() -> None:
    async with serving(b"") as server:
        url = server.url
    with pytest.raises(HttpError) as caught:
        await post(f"{url}/a?key=hush")
    assert str(caught.value) == "no connection: Connection refused (os error 111)"


# Connections


async def test_a_request_that_reached_the_server_is_not_sent_again() -> None:
    """The race of keep-alive: the server closes the idle connection just as the next request arrives on it."""

    async def serves_one(_: bytes, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 1:
            writer.write(answer(b"first"))
        else:
            writer.transport.abort()

    async with serving(serves_one) as server:
        client = HttpClient(server.url, {}, connect_seconds=20)
        await post(client)
        with pytest.raises(HttpError):
            await post(client)
    assert (len(server.requests), server.connections) == (2, 1)
