"""Reads what the scenario trigger engine answered. The contract is docs/engine-contract.md.

Nothing an engine sends is trusted: what was not asked for is dropped, what cannot be read is a failure of the call, and
its texts are made harmless before anybody keeps them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from shared.errors import EngineRefusedCallError, EngineRejectedError, EngineTransientError
from shared.evaluations import MentorScenarios, Outcome
from shared.http_connection import HttpAnswer
from shared.observability import log_event

REJECTED_STATUSES = frozenset({401, 403, 404})
TRANSIENT_STATUSES = frozenset({408, 429})
OVERLOAD_STATUSES = frozenset({429, 503})
MAX_ERROR_LENGTH = 300
MAX_CODE_LENGTH = 64
# A mistake in a header must not put a programme to sleep for a day.
MAX_RETRY_AFTER_SECONDS = 3600.0

_SECONDS = re.compile(r"[0-9]{1,18}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_EMAIL = re.compile(r"[^\s@<>,;:]+@[^\s@<>,;:]+")
_NOT_A_CODE = re.compile(r"[^a-z0-9_.-]+")


class Item(NamedTuple):
    """The engine's answer for one pair."""

    outcome: Outcome
    notification_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    retryable: bool = False


Answer = dict[tuple[str, str], Item]

_PLAIN_ITEMS = {item.outcome: item for item in (Item("triggered"), Item("not_triggered"), Item("suppressed"))}


def read_answer(response: HttpAnswer, users: Sequence[MentorScenarios]) -> Answer:
    """The engine's answer for each pair that was asked for; pairs that it left out are missing.

    Args:
        response: what the engine sent.
        users: who was asked about.

    Raises:
        EngineTransientError: the call failed; worth repeating.
        EngineRefusedCallError: the engine will not take this call.
        EngineRejectedError: the engine will not take any call.
    """
    status = response.status
    if status == 200:
        return _read_results(response.content, users)
    code = f"engine_http_{status}"
    if status in TRANSIENT_STATUSES or status >= 500:
        raise EngineTransientError(
            code,
            f"the engine answered {status}",
            retry_after=_retry_after(response),
            overloaded=status in OVERLOAD_STATUSES,
        )
    if status in REJECTED_STATUSES or 300 <= status < 400:
        raise EngineRejectedError(code, f"the engine answered {status}: check its URL and token")
    if status >= 400:
        raise EngineRefusedCallError(code, f"the engine answered {status}")
    raise EngineTransientError("engine_bad_answer", f"expected status 200, found {status}")


def _retry_after(response: HttpAnswer) -> float | None:
    """Seconds, from either form of the header (RFC 9110, 10.2.3); None where it makes no sense."""
    value = (response.header("Retry-After") or "").strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    at = _http_date(value)
    if at is None:
        return None
    # By the clock that the date was made with: ours, or the engine's, may be an hour off.
    now = _http_date(response.header("Date") or "") or datetime.now(UTC)
    return min(max(0.0, (at - now).total_seconds()), MAX_RETRY_AFTER_SECONDS)


def _http_date(value: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(value)
        return at.replace(tzinfo=at.tzinfo or UTC)
    except (ValueError, OverflowError):
        return None


def _read_results(content: bytes, users: Sequence[MentorScenarios]) -> Answer:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise EngineTransientError("engine_bad_answer", f"expected JSON: {type(error).__name__}") from error
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        raise EngineTransientError("engine_bad_answer", "expected an object with a list of results")
    awaited = {(user.user_id, scenario_type) for user in users for scenario_type in user.scenario_types}
    answer: Answer = {}
    dropped = 0
    for result in results:
        # A result that is no object, or lacks a member, or has one of another type: nobody asked for that.
        try:
            pair = result["user_id"], result["scenario_type"]
            item = _item_of(result) if pair in awaited else None
        except (TypeError, KeyError, IndexError):
            dropped += 1
            continue
        if item is None:
            dropped += 1
        else:
            awaited.remove(pair)
            answer[pair] = item
    if dropped:
        log_event(
            "engine_results_dropped", "The engine sent results that nobody asked for or can read", dropped=dropped
        )
    return answer


def _item_of(result: dict[str, Any]) -> Item | None:
    outcome = result["outcome"]
    if outcome == "failed":
        return _failure_of(result)
    plain = _PLAIN_ITEMS.get(outcome)
    notification_id = result.get("notification_id")
    if plain is None or notification_id is None:
        return plain
    return Item(plain.outcome, _id_of(notification_id))


def _failure_of(result: dict[str, Any]) -> Item:
    error = result.get("error")
    error = error if isinstance(error, dict) else {}
    code, message = error.get("code"), error.get("message")
    return Item(
        "failed",
        error_code=_code_of(code) if isinstance(code, str) and code else "engine_failed",
        error_message=harmless(message) if isinstance(message, str) else None,
        retryable=error.get("retryable") is True,
    )


def _id_of(value: object) -> str | None:
    if (
        isinstance(value, str)
        and len(value) <= MAX_ERROR_LENGTH
        and value.replace("-", "").isalnum()
        and value.isascii()
    ):
        return value  # what `harmless` would leave as it is, at a tenth of its cost: there may be one in each result
    # Python takes true and false for numbers.
    return harmless(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _code_of(text: str) -> str:
    """A foreign code as one of ours. Cut first: looking for addresses takes time with the square of the length."""
    return _NOT_A_CODE.sub("_", _EMAIL.sub("address", text[: 4 * MAX_CODE_LENGTH].lower()))[:MAX_CODE_LENGTH]


def harmless(text: str) -> str:
    """Foreign text, fit to be stored and shown: one line, valid UTF-8, bounded, without e-mail addresses."""
    text = text[: 4 * MAX_ERROR_LENGTH].encode("utf-8", "replace").decode()
    return _EMAIL.sub("[address]", _CONTROL.sub(" ", text))[:MAX_ERROR_LENGTH]
