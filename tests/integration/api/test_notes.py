"""A note is the caller's text, and stays as it is wherever it is read."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.integration.api.served import API, Served

NOTES = {
    "emoji": "\N{GRINNING FACE}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}" * 500,
    "from right to left": "\N{RIGHT-TO-LEFT OVERRIDE}\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u200f",
    "combining": "Z\u0351\u036b\u0343\u036a\u0302\u036b a\u030a \u00e5 e\u0301 \u00e9",
    "line ends": "a\u2028b\u2029c\nd\re\r\nf\x85g\x0bh\x0ci",
    "quotes": '"\'`\\ \\" \\u0041 %s {0} $1 ${x} \\',
    "markup": "</script><script>alert(1)</script><!-- & &amp; ]]>",
    "json": '{"severity": "CRITICAL", "event": "forged"}\n{"event": "forged"}',
    "spaces": " \t\n leading, trailing\u00a0\u3000\u200b ",
    "control characters": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "no characters": "\ufffe\uffff\U0010ffff\ufeff",
    "empty": "",
}
assert len(NOTES["emoji"]) == 2000


def note_in(answer: httpx.Response) -> str | None:
    assert answer.is_success, answer.text
    note: str | None = answer.json()["note"]
    return note


async def test_a_note_comes_back_exactly_as_it_was_sent(served: Served) -> None:
    for name, note in NOTES.items():
        # One as its characters in UTF-8, the other escaped: the same text in JSON.
        escaped = json.dumps({"note": note, "dry_run": True})
        as_is = json.dumps({"note": note}, ensure_ascii=False)
        headers = {"Content-Type": "application/json"}

        opened = await served.call("POST", API, content=escaped.encode(), headers=headers)
        assert note_in(opened) == note, name
        path = f"{API}/{opened.json()['id']}"
        assert note_in(await served.call("PUT", path, json={"note": "another"})) == "another"
        assert note_in(await served.call("PUT", path, content=as_is.encode(), headers=headers)) == note, name
        assert note_in(await served.call("GET", path)) == note, name
        listed = (await served.call("GET", API, params={"limit": 1})).json()["items"]
        assert [item["note"] for item in listed] == [note], name
        assert note_in(await served.call("PUT", path, json={"note": None})) is None

    assert_the_log_holds_none_of(served.function.log_path)
    assert served.defects() == []


async def test_a_request_with_an_odd_note_is_the_same_request_when_it_is_sent_again(served: Served) -> None:
    for number, note in enumerate(NOTES.values()):
        key = {"Idempotency-Key": f"key-{number}"}
        request = {"note": note, "dry_run": True}
        opened = await served.call("POST", API, json=request, headers=key)
        again = await served.call("POST", API, json=request, headers=key)
        other = await served.call("POST", API, json=request | {"note": f"{note}."[-2000:]}, headers=key)

        assert (opened.status_code, again.status_code, other.status_code) == (201, 200, 422), note
        assert again.json()["id"] == opened.json()["id"]


def assert_the_log_holds_none_of(log: Path) -> None:
    """A note is written by people about people: it is no business of the log's. Each line is one JSON object."""
    lines = log.read_bytes().decode().split("\n")
    assert lines.pop() == ""
    for line in lines:
        assert isinstance(json.loads(line), dict)
        assert json.loads(line)["event"] != "forged"
    assert "alert(1)" not in log.read_text()
