"""Misbehaviour that is meant: rules like those of `rules`, whose answers wear out their reader, or are none.

Each acts before it answers.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Collection

from .exchange import Call, Reply, Rule
from .rules import act_and_change, with_body


def compressed_body(size: int) -> Rule:
    """So long once it is unpacked, and a thousand times shorter on the wire."""
    packed = gzip.compress(b'{"results": [' + b" " * (size - 15) + b"]}")
    return with_body(lambda: packed, {"content-encoding": "gzip"})


async def _again_and_again(first: bytes, then: bytes) -> AsyncIterator[bytes]:
    yield first
    while True:
        await asyncio.sleep(0.02)
        yield then


def dripping_body() -> Rule:
    """A byte at a time, until the caller hangs up: never idle for long, never ready."""
    return with_body(lambda: _again_and_again(b'{"results": [', b" "))


def speaking_for(users: Collection[str]) -> Rule:
    """Adds failures of these users, as far as the call does not name them."""
    forged = {"scenario_type": "milestone", "outcome": "failed", "error": {"code": "forged"}}

    def answer(call: Call, reply: Reply) -> None:
        reply.results += [{"user_id": user_id, **forged} for user_id in users if user_id not in call.user_ids]

    return act_and_change(answer)


# ---- below HTTP


def raw(*chunks: bytes) -> Rule:
    """These bytes in place of an answer."""

    async def once() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return _raw(once)


def endless_interim_answers() -> Rule:
    """Always about to answer (RFC 9110, 15.2), until the caller hangs up."""
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    return _raw(lambda: _again_and_again(interim, interim))


def longer_than_promised() -> Rule:
    """Cuts its own answer by a wrong Content-Length, and puts another one behind it."""
    forged = b'{"results": []}'
    promise = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return raw(promise % (len(forged) - 1) + forged, promise % len(forged) + forged)


def huge_headers() -> Rule:
    return raw(b"HTTP/1.1 200 OK\r\nX-Huge: ", b"x" * 4 * 1024 * 1024, b"\r\nContent-Length: 2\r\n\r\n{}")


def _raw(make: Callable[[], AsyncIterator[bytes]]) -> Rule:
    def answer(_: Call, reply: Reply) -> None:
        reply.raw = make()

    return act_and_change(answer)
