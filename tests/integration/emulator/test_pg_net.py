"""The pg_net stand-in and its driver, measured against what pg_net does."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from tests.emulator.pg_net import BATCH_SIZE
from tests.emulator.project import Project

from .conftest import Sink
from .looking import rows, until


async def answers(project: Project) -> list[tuple[object, ...]]:
    return await rows(project, "select id, status_code, timed_out, error_msg from net._http_response order by id")


async def test_a_request_leaves_at_commit_and_not_before(project: Project, sink: Sink) -> None:
    await project.start_net()
    async with project.connect() as database:
        async with database.transaction(force_rollback=True):
            await database.execute(b"select net.http_post(%s)", (f"{sink.url}/never",))
        async with database.transaction():
            await database.execute(b"select net.http_post(%s)", (f"{sink.url}/sent",))
            # another session sees nothing, and the driver is one
            assert await rows(project, "select * from net.http_request_queue") == []
            assert sink.requests == []

    await until(lambda: answers(project))
    assert [request.split()[1] for request in sink.requests] == [b"/sent"]
    assert await rows(project, "select * from net.http_request_queue") == []


async def test_a_post_carries_body_headers_and_parameters(project: Project, sink: Sink) -> None:
    await project.start_net()
    async with project.connect() as database:
        await database.execute(
            b"select net.http_post(%s, body => %s, params => %s, headers => %s)",
            (f"{sink.url}/post", Jsonb({"n": 1}), Jsonb({"a b": "ä&"}), Jsonb({"X-Token": "t"})),
        )
    await until(lambda: answers(project))
    head, body = sink.requests[0].split(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert head.startswith(b"POST /post?a%20b=%C3%A4%26 HTTP/1.1")
    assert b"x-token: t" in lines
    assert b"content-type: application/json" in lines
    assert body == b'{"n": 1}'
    [(_, status_code, timed_out, error)] = await answers(project)
    assert (status_code, timed_out, error) == (200, False, None)


async def test_a_round_ends_with_its_slowest_request(project: Project, sink: Sink) -> None:
    """Until then any role that runs SQL reads its requests, headers included; `created` is when the round began."""
    token = Jsonb({"Authorization": "Bearer t"})
    queued = (
        "select count(*), bool_or(headers ? 'Authorization') from net.http_request_queue where url ~ '(fast|slow)$'"
    )
    async with project.connect() as database, project.connect() as stranger:
        await stranger.execute(b"set role anon")

        async def seen_by_anon() -> list[tuple[object, ...]]:
            return await (await stranger.execute(queued.encode())).fetchall()

        async with database.transaction():
            for path in ("/fast", "/slow"):
                await database.execute(b"select net.http_get(%s, headers => %s)", (sink.url + path, token))
        await project.start_net()

        async def both_sent() -> bool:
            return len(sink.requests) == 2

        await until(both_sent)
        await database.execute(b"select net.http_get(%s)", (f"{sink.url}/next-round",))
        assert await answers(project) == [], "the fast one was answered, but the round is not over"
        assert await seen_by_anon() == [(2, True)]
        [(before_the_answer,)] = await rows(project, "select clock_timestamp()")
        sink.slow_may_answer.set()

        async def all_answered() -> bool:
            return len(await answers(project)) == 3

        await until(all_answered, 60)
        assert await seen_by_anon() == [(0, None)]
        assert await rows(
            project,
            "select count(distinct created), max(created) < %s from net._http_response where id < 3",
            before_the_answer,
        ) == [(1, True)]
    assert sink.requests[2].startswith(b"GET /next-round")


async def test_rounds_are_of_bounded_size(project: Project, sink: Sink) -> None:
    async with project.connect() as database:
        await database.execute(
            # On a busy machine a round's connections take seconds; no request may end before they are counted.
            b"select net.http_get(%s || '/slow?' || n, timeout_milliseconds => 60000) from generate_series(1, %s) as n",
            (sink.url, BATCH_SIZE + 1),
        )
    await project.start_net()

    async def first_round_sent() -> bool:
        return len(sink.requests) >= BATCH_SIZE

    await until(first_round_sent, 60)
    assert len(sink.requests) == BATCH_SIZE
    sink.slow_may_answer.set()

    async def all_answered() -> bool:
        return len(await answers(project)) == BATCH_SIZE + 1

    await until(all_answered, 60)


async def test_a_time_out_is_a_message_and_nothing_else(project: Project, sink: Sink) -> None:
    await project.start_net()
    async with project.connect() as database:
        await database.execute(b"select net.http_get(%s, timeout_milliseconds => 50)", (f"{sink.url}/slow",))
    [(_, status_code, timed_out, error)] = await until(lambda: answers(project))
    assert (status_code, timed_out) == (None, None)
    assert str(error).startswith("Timeout of 50 ms reached.")


async def test_a_refused_connection_is_an_answer(project: Project) -> None:
    await project.start_net()
    async with project.connect() as database:
        await database.execute(b"select net.http_get('http://127.0.0.1:9/')")
    [(_, status_code, _, error)] = await until(lambda: answers(project))
    assert status_code is None
    assert error
