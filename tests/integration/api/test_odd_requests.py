"""Requests that no client library sends: an answer that is no error of ours, or none, and a log that stays readable."""

from __future__ import annotations

import re

from tests.integration.api.served import API, Served

CLOSE = b"Host: x\r\nConnection: close\r\n"
ONE_MIB = 1024 * 1024


def status_of(answer: bytes) -> int | None:
    """The status of the first answer that is final; None: the connection was closed without one."""
    found = re.search(rb"^HTTP/1\.1 ([2-5]\d\d) ", answer, re.MULTILINE)
    return int(found[1]) if found else None


async def test_an_odd_first_line_is_served_or_refused_and_never_an_error_of_ours(served: Served) -> None:
    known = f"Authorization: Bearer {served.project.admin_token}\r\n".encode()
    api = API.encode()
    for line, status in {
        b"GET /health HTTP/1.0": 200,
        # The server takes the whole of it for a path.
        b"GET http://elsewhere/health HTTP/1.1": 404,
        b"GET http:///[::1 HTTP/1.1": 404,
        b"GET * HTTP/1.1": 404,
        b"OPTIONS * HTTP/1.1": 404,
        b"CONNECT elsewhere:443 HTTP/1.1": 404,
        b"M-SEARCH /health HTTP/1.1": 405,
        b"get /health HTTP/1.1": 405,
        b"GET /\xff HTTP/1.1": 400,
        b"GET /a b HTTP/1.1": 400,
        b"GET  HTTP/1.1": 400,
        b"\x16\x03\x01\x02\x00\x01\x00": 400,
        b"GET /%00 HTTP/1.1": 404,
        b"GET /%0d%0aX: y HTTP/1.1": 400,
        b"GET /%0d%0aX:%20y HTTP/1.1": 404,
        b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1": 404,
        b"GET /../health HTTP/1.1": 404,
        b"GET //health HTTP/1.1": 404,
        b"GET /health/ HTTP/1.1": 404,
        b"GET /% HTTP/1.1": 404,
        b"GET /#x HTTP/1.1": 404,
        b"GET /" + b"a" * 15_000 + b" HTTP/1.1": 404,
        b"GET " + api + b"/%0a HTTP/1.1": 422,
        b"GET " + api + b"/" + b"%F0%9F%98%80" * 50 + b" HTTP/1.1": 422,
        b"GET " + api + b"?%00=1 HTTP/1.1": 422,
        b"GET " + api + b"?limit=1;limit=2 HTTP/1.1": 422,
        b"GET " + api + b"?" + b"a=1&" * 3000 + b" HTTP/1.1": 422,
        b"GET " + api + b"?limit=1&limit=2 HTTP/1.1": 422,
    }.items():
        answer = await served.send_raw(line + b"\r\n" + known + CLOSE + b"\r\n")
        assert status_of(answer) == status, (line[:100], answer[:300])
        assert b"Traceback" not in answer
    assert served.defects() == []


async def test_odd_headers_are_served_or_refused_and_never_an_error_of_ours(served: Served) -> None:
    for headers, status in {
        # HTTP/1.1 wants one Host.
        b"Connection: close\r\n": 400,
        b"Host: a\r\nHost: b\r\n": 400,
        b"Host: \r\nConnection: close\r\n": 200,
        b"Host: [::1/%00@\xff\r\nConnection: close\r\n": 200,
        # Longer heads are refused where they arrive in pieces: test_hostile_callers.py.
        CLOSE + b"X: " + b"a" * 16_000 + b"\r\n": 200,
        CLOSE + b"".join(b"X-%d: a\r\n" % number for number in range(1000)): 200,
        CLOSE + b"X: a\0b\r\n": 400,
        CLOSE + b"X : a\r\n": 400,
        CLOSE + b"Content-Length: x\r\n": 400,
        CLOSE + b"Content-Length: -1\r\n": 400,
        CLOSE + b"Content-Length: 99999999999999999999999\r\n": 400,
        CLOSE + b"traceparent: 00-\xff-\r\n": 200,
        CLOSE + b"X-Forwarded-For: \xff, [, 1.2.3.4.5\r\n": 200,
        CLOSE + b"Authorization: Bearer \xff\xfe\r\n": 200,
        # The server speaks WebSocket, as the Data API's client brings a package for it; nothing here does.
        b"Host: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n": 403,
    }.items():
        answer = await served.send_raw(b"GET /health HTTP/1.1\r\n" + headers + b"\r\n")
        assert status_of(answer) == status, (headers[:100], answer[:300])

    for credentials in (
        b"Bearer \xff\xfe",
        b"Bearer",
        b"",
        b"Basic Og==",
        b"Bearer " + b"a" * 10_000,
        b"\xf0\x9f\x98\x80",
    ):
        answer = await served.send_raw(b"GET / HTTP/1.1\r\nAuthorization: " + credentials + b"\r\n" + CLOSE + b"\r\n")
        assert status_of(answer) == 401, (credentials[:100], answer[:300])
    assert served.defects() == []


async def test_a_body_that_is_not_as_long_as_it_says_opens_nothing(served: Served) -> None:
    start = b"POST %s HTTP/1.1\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n" % (
        API.encode(),
        served.project.admin_token.encode(),
    )
    body = b'{"dry_run": true}'

    # Shorter than it says, and the caller leaves: there is nobody to answer.
    shorter = start + CLOSE + b"Content-Length: 400\r\n\r\n" + body
    assert status_of(await served.send_raw(shorter, then_leave=True)) is None
    # Longer than it says: what is left over is read as a next request, and is none.
    longer = start + b"Host: x\r\nContent-Length: 4\r\n\r\n" + body
    assert status_of(await served.send_raw(longer)) == 400
    # It says that it is small, in two ways; or that it is huge, and is.
    two_lengths = start + CLOSE + b"Content-Length: 17\r\nContent-Length: 18\r\n\r\n" + body
    assert status_of(await served.send_raw(two_lengths)) == 400
    huge = start + CLOSE + b"Content-Length: 99999999999\r\n\r\n" + b" " * (ONE_MIB + 1)
    assert status_of(await served.send_raw(huge)) == 413
    # Chunks that are none, and chunks beside a length that is another: the chunks count, or nothing does.
    chunked = start + CLOSE + b"Transfer-Encoding: chunked\r\n"
    assert status_of(await served.send_raw(chunked + b"\r\nzz\r\n" + body + b"\r\n0\r\n\r\n")) == 400
    many = b"10000\r\n" + b" " * 65536 + b"\r\n"
    assert status_of(await served.send_raw(chunked + b"\r\n" + many * 16 + b"1\r\n \r\n0\r\n\r\n")) == 413
    assert status_of(await served.send_raw(chunked + b"Content-Length: 2\r\n\r\n1\r\n \r\n0\r\n\r\n")) == 400

    assert await served.night.invocations() == []
    assert served.defects() == []
