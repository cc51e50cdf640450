"""A note is the caller's text: it comes back as it was sent, wherever it is read, and is not in the log."""

from __future__ import annotations

import json
import re

from tests.integration.api.served import API, Served

NOTES = (
    "\N{GRINNING FACE}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}" * 500,
    "\N{RIGHT-TO-LEFT OVERRIDE}\u05e9\u05dc Z\u0351\u036b a\u030a \u00e5",
    "".join(map(chr, range(1, 32))) + "\x7f\x85\u2028\u2029 \t\u00a0\u200b ",
    '"\'`\\ \\" \\u0041 %s {0} $1 ${x} \\</script><!-- &amp; ]]>',
    '{"severity": "CRITICAL", "event": "forged"}\n{"event": "forged"}',
    "\ufffe\uffff\U0010ffff\ufeff",
    "",
)


async def test_a_note_comes_back_as_it_was_sent(served: Served) -> None:
    for number, note in enumerate(NOTES):
        key = {"Idempotency-Key": f"key-{number}", "Content-Type": "application/json"}
        # Escaped, and as its characters in UTF-8: the same text in JSON.
        spellings = [json.dumps({"note": note, "dry_run": True}, ensure_ascii=plain).encode() for plain in (True, False)]
        opened, again = [await served.call("POST", API, content=text, headers=key) for text in spellings]
        path = f"{API}/{opened.json()['id']}"
        emptied = await served.call("PUT", path, json={"note": None})
        changed = await served.call("PUT", path, json={"note": note})
        read = await served.call("GET", path)
        (listed,) = (await served.call("GET", API, params={"limit": 1})).json()["items"]

        assert (opened.status_code, again.status_code, emptied.json()["note"]) == (201, 200, None), note
        assert [answer.json()["note"] for answer in (opened, again, changed, read)] == [note] * 4
        assert listed["note"] == note

    assert served.defects() == []
    assert not re.search("forged|script>", served.function.log_path.read_text())
