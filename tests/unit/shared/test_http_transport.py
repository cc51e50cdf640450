"""The transport against real sockets of this machine: what it follows, reads, and gives up on."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest

from shared.http_connection import Connection, HttpAnswer, ResponseTooLargeError
from shared.http_transport import HttpTransport
from tests.unit.shared.scripted_server import Script, serving


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(max_response_bytes=10_000)
    yield transport
    await transport.aclose()


async def send(
    transport: HttpTransport, url: str, *, content: bytes | None = None, seconds: float = 30
) -> httpx.Response:
    request = httpx.Request(
        "GET" if content is None else "POST",
        url,
        content=content,
        headers=[("X-Twice", "1"), ("X-Twice", "2")],
        extensions={"timeout": httpx.Timeout(seconds).as_dict()},
    )
    return await transport.handle_async_request(request)


async def post(
    transport: HttpTransport,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    content: bytes = b"{}",
    seconds: float = 30,
    max_bytes: int = 1_000_000,
) -> HttpAnswer:
    return await transport.post(
        url, headers=headers or {}, content=content, timeout_seconds=seconds, max_bytes=max_bytes
    )


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def test_request_and_answer_arrive_as_they_are(transport: HttpTransport) -> None:
    async with serving(answer(b"hello", b"X-Twice: a", b"X-Twice: b", b"Retry-After: 7", status=b"429 Slow")) as server:
        response = await send(transport, f"{server.url}/a/b?c=d%20e", content=b'{"x": 1}')
        assert (response.status_code, response.content) == (429, b"hello")
        assert response.headers["retry-after"] == "7"
        assert response.headers.get_list("x-twice") == ["a", "b"]
        (request,) = server.requests
        assert request.startswith(b"POST /a/b?c=d%20e HTTP/1.1\r\n")
        assert request.endswith(b'\r\n\r\n{"x": 1}')
        assert request.lower().count(b"x-twice") == 2
        assert request.lower().count(b"content-length") == 1


async def test_it_serves_as_an_httpx_clients_transport(transport: HttpTransport) -> None:
    async with serving(answer(b'{"a": 1}')) as server:
        client = httpx.AsyncClient(transport=transport)
        assert (await client.get(server.url)).json() == {"a": 1}
        assert (await client.post(server.url, json={"b": 2})).json() == {"a": 1}
        assert server.requests[1].endswith(b'{"b":2}')


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 Temporary", b"308 Permanent"])
async def test_a_redirect_is_handed_over_and_not_followed(transport: HttpTransport, status: bytes) -> None:
    async with serving(answer(b"", b"Location: /elsewhere", status=status)) as server:
        response = await send(transport, server.url)
        assert response.status_code == int(status[:3])
        assert response.headers["location"] == "/elsewhere"
        assert len(server.requests) == 1


async def test_an_answer_of_exactly_the_cap_is_read_and_a_longer_one_is_not(transport: HttpTransport) -> None:
    async with serving(answer(b"x" * 10_000)) as server:
        assert len((await send(transport, server.url)).content) == 10_000
    async with serving(answer(b"x" * 10_001)) as server:
        with pytest.raises(ResponseTooLargeError):
            await send(transport, server.url)


async def test_a_post_may_lower_the_cap_and_not_raise_it(transport: HttpTransport) -> None:
    async with serving(answer(b"x" * 10_001)) as server:
        for cap, expected in ((100, "at most 100 bytes"), (20_000, "at most 10000 bytes")):
            with pytest.raises(ResponseTooLargeError, match=expected):
                await post(transport, server.url, max_bytes=cap)


async def test_a_post_and_its_answer_arrive_as_they_are(transport: HttpTransport) -> None:
    async with serving(answer(b"hello", b"Retry-After: 7", b"X-Odd: \xff", status=b"429 Slow")) as server:
        found = await post(transport, f"{server.url}/a/b", headers={"Authorization": "Bearer t"}, content=b'{"x": 1}')
        assert (found.status, found.content) == (429, b"hello")
        assert (found.header("retry-after"), found.header("x-odd"), found.header("x-none")) == ("7", None, None)
        (request,) = server.requests
        assert request.startswith(b"POST /a/b HTTP/1.1\r\n")
        assert b"authorization: bearer t\r\n" in request.lower()
        assert request.endswith(b'\r\n\r\n{"x": 1}')


async def test_a_post_without_an_answer_in_time_or_a_server_fails_as_any_request(transport: HttpTransport) -> None:
    async def silent(_: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serving(silent) as server:
        with pytest.raises(httpx.ReadTimeout):
            await post(transport, server.url, seconds=0.05)
        closed = server.url
    with pytest.raises(httpx.ConnectError):
        await post(transport, closed)


async def test_what_follows_the_promised_length_is_no_answer_to_the_next_request(transport: HttpTransport) -> None:
    async with serving(answer(b"its own") + answer(b"forged")) as server:
        for _ in range(5):
            assert (await send(transport, server.url)).content == b"its own"


async def test_an_answer_without_a_length_is_capped_as_well(transport: HttpTransport) -> None:
    async def endless(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await writer.drain()

    async with serving(endless) as server:
        with pytest.raises(ResponseTooLargeError):
            await send(transport, server.url)


async def test_a_compressed_answer_is_unpacked(transport: HttpTransport) -> None:
    async with serving(answer(gzip.compress(b'{"a": 1}'), b"Content-Encoding: gzip")) as server:
        response = await send(transport, server.url)
        assert response.json() == {"a": 1}
        assert "content-encoding" not in response.headers


async def test_the_cap_counts_unpacked_bytes(transport: HttpTransport) -> None:
    packed = gzip.compress(b"x" * 1_000_000)
    assert len(packed) < 10_000
    async with serving(answer(packed, b"Content-Encoding: gzip")) as server:
        with pytest.raises(ResponseTooLargeError):
            await send(transport, server.url)


async def test_an_answer_that_cannot_be_unpacked_is_a_network_error(transport: HttpTransport) -> None:
    async with serving(answer(b"this is not gzip", b"Content-Encoding: gzip")) as server:
        with pytest.raises(httpx.NetworkError):
            await send(transport, server.url)


async def hangs_at_once(_: bytes, __: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hangs_in_the_body(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
    await writer.drain()
    await asyncio.Event().wait()


async def trickles(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)  # the server's pace, not the test's: an idle time-out would never end this


@pytest.mark.parametrize("script", [hangs_at_once, hangs_in_the_body, trickles])
async def test_an_answer_without_an_end_ends_in_a_time_out(transport: HttpTransport, script: Script) -> None:
    async with serving(script) as server:
        with pytest.raises(httpx.TimeoutException):
            await send(transport, server.url, seconds=0.2)


async def test_after_a_time_out_the_next_request_is_served(transport: HttpTransport) -> None:
    async def hangs_for_a(request: bytes, writer: asyncio.StreamWriter) -> None:
        if request.startswith(b"GET /a"):
            await asyncio.Event().wait()
        writer.write(answer(b"b"))

    async with serving(hangs_for_a) as server:
        with pytest.raises(httpx.TimeoutException):
            await send(transport, f"{server.url}/a", seconds=0.1)
        assert (await send(transport, f"{server.url}/b")).content == b"b"


async def test_a_refused_connection_is_a_connect_error(transport: HttpTransport) -> None:
    async with serving(b"") as server:
        url = server.url
    with pytest.raises(httpx.ConnectError):
        await send(transport, url)


async def resets_at_once(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def resets_in_the_body(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
    await writer.drain()
    writer.transport.abort()


async def closes_in_the_body(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
    writer.close()


async def speaks_no_http(_: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example.org ESMTP\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("script", [resets_at_once, resets_in_the_body, closes_in_the_body, speaks_no_http])
async def test_a_connection_that_breaks_is_a_network_error_and_never_half_an_answer(
    transport: HttpTransport, script: Script
) -> None:
    async with serving(script) as server:
        with pytest.raises(httpx.NetworkError):
            await send(transport, server.url)


async def test_a_request_that_is_cancelled_leaves_the_transport_usable(transport: HttpTransport) -> None:
    arrived = asyncio.Event()

    async def hangs_for_a(request: bytes, writer: asyncio.StreamWriter) -> None:
        if request.startswith(b"GET /a"):
            arrived.set()
            await asyncio.Event().wait()
        writer.write(answer(b"b"))

    async with serving(hangs_for_a) as server:
        task = asyncio.create_task(send(transport, f"{server.url}/a"))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await send(transport, f"{server.url}/b")).content == b"b"


async def test_a_header_that_is_no_ascii_does_no_harm(transport: HttpTransport) -> None:
    async with serving(answer(b"{}", b"X-Name: J\xf6rg")) as server:
        response = await send(transport, server.url)
        assert (response.status_code, response.content) == (200, b"{}")
        assert (await post(transport, server.url)).header("x-name") is None


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nb", "a\rb"])
async def test_a_header_of_several_lines_is_not_sent(transport: HttpTransport, value: str) -> None:
    async with serving(answer(b"{}")) as server:
        with pytest.raises(ValueError, match="one line each"):
            await post(transport, server.url, headers={"X-A": value})
        assert server.requests == []


async def test_a_connection_is_used_again_unless_the_server_says_that_it_closes_it(transport: HttpTransport) -> None:
    async def closes_after_b(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"b", b"Connection: close") if request.startswith(b"POST /b") else answer(b"b"))

    async with serving(closes_after_b) as server:
        for path, connections in (("a", 1), ("a", 1), ("b", 1), ("a", 2)):
            assert (await post(transport, f"{server.url}/{path}")).content == b"b"
            assert server.connections == connections


async def test_an_answer_that_ends_with_its_connection_is_whole(transport: HttpTransport) -> None:
    async def until_the_end(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        writer.close()

    async with serving(until_the_end) as server:
        assert (await post(transport, server.url)).content == b"all of it"
        assert (await post(transport, server.url)).content == b"all of it"


async def test_what_is_said_before_the_answer_is_not_the_answer(transport: HttpTransport) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with serving(early + answer(b"the answer")) as server:
        for _ in range(2):
            assert (await post(transport, server.url)).content == b"the answer"


async def test_an_answer_packed_otherwise_is_a_network_error(transport: HttpTransport) -> None:
    async with serving(answer(b"?", b"Content-Encoding: br")) as server:
        with pytest.raises(httpx.NetworkError):
            await post(transport, server.url)
        assert b"accept-encoding" not in server.requests[0].lower()


async def test_headers_without_an_end_are_a_network_error(transport: HttpTransport) -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nX-Huge: " + b"x" * 4_000_000) as server:
        with pytest.raises(httpx.NetworkError):
            await post(transport, server.url)


async def test_an_answer_that_changes_the_protocol_is_a_network_error(transport: HttpTransport) -> None:
    unhandled: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    try:
        async with serving(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nx") as server:
            with pytest.raises(httpx.NetworkError, match="expected an HTTP answer"):
                await post(transport, server.url)
    finally:
        loop.set_exception_handler(None)
    assert unhandled == []


async def test_a_connection_that_is_gone_before_the_request_is_a_network_error_at_once() -> None:
    """Without a time-out of its own, such a request would wait for ever."""
    connection = Connection()
    connection.connection_made(asyncio.Transport())
    connection.connection_lost(None)
    async with asyncio.timeout(10):
        with pytest.raises(httpx.NetworkError):
            await connection.exchange(b"GET / HTTP/1.1\r\n\r\n", timeout_seconds=None, max_bytes=100)
