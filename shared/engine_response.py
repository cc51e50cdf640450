"""Reads the answers of the scenario trigger engine. The contract is docs/engine-contract.md.

Nothing an engine sends is trusted: results for other pairs are dropped, an unreadable answer is a failure of the call,
and texts are sanitized before they are stored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from shared.errors import EngineAccessError, EngineTransientError, InvalidEngineRequestError
from shared.evaluations import EvaluationResult, MentorScenarios, Outcome
from shared.post_client import HttpResponse
from shared.sanitize import sanitize

MAX_ERROR_LENGTH = 300
MAX_CODE_LENGTH = 64
# A wrong header must not pause a process for a day.
MAX_RETRY_AFTER_SECONDS = 3600.0

_SECONDS = re.compile(r"[0-9]{1,18}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_EMAIL = re.compile(r"[^\s@<>,;:]+@[^\s@<>,;:]+")
# What `harmless` leaves as it is, at a tenth of its cost: there may be one in each result.
_PLAIN_ID = re.compile(r"[0-9A-Za-z-]{1,300}")
_NOT_A_CODE = re.compile(r"[^a-z0-9_.…-]+")
# What names one user or one call, not a cause.
_ID_IN_A_CODE = re.compile(
    r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|(?<![0-9a-z])[0-9a-f]{32}(?![0-9a-z])|[0-9]{6,}"
)
# The engine's own word, to the one value that all results share.
_PLAIN: dict[str, Outcome] = {"triggered": "triggered", "not_triggered": "not_triggered", "suppressed": "suppressed"}

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class EngineResponse:
    """The result of each pair of a call, as of its first attempt; None where the engine left it out.

    `retryable`: failed pairs worth another attempt; `dropped`: results that match no pair, or that cannot be read.
    """

    results: Mapping[Pair, EvaluationResult | None]
    retryable: Collection[Pair]
    dropped: int

    @property
    def is_final(self) -> bool:
        """Returns whether there is a result for each pair, and none is worth another attempt."""
        return not self.retryable and None not in self.results.values()


def read_response(response: HttpResponse, users: Sequence[MentorScenarios]) -> EngineResponse:
    """Returns the result of each pair of the call; raises what `EngineClient.evaluate` says of the engine's answer."""
    status = response.status
    if status == 200:
        return _read_results(response, users)
    code = f"engine_http_{status}"
    if status in (408, 429) or status >= 500:
        message, overloaded = f"the engine answered {status}", status in (429, 503)
        raise EngineTransientError(code, message, retry_after=_retry_after(response), overloaded=overloaded)
    if status in (401, 403, 404) or 300 <= status < 400:
        raise EngineAccessError(code, f"the engine answered {status}: check its URL and token")
    if status >= 400:
        raise InvalidEngineRequestError(code, f"the engine answered {status}")
    raise EngineTransientError("engine_bad_answer", f"expected status 200, found {status}")


def _retry_after(response: HttpResponse) -> float | None:
    """Returns the seconds of either form of the header (RFC 9110, 10.2.3); None where it is unreadable."""
    value = (response.header("retry-after") or "").strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    at = _http_date(value)
    if at is None:
        return None
    # By the engine's clock, which made the date: it may differ from this one by an hour.
    now = _http_date(response.header("date") or "") or datetime.now(UTC)
    return min(max(0.0, (at - now).total_seconds()), MAX_RETRY_AFTER_SECONDS)


def _http_date(value: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(value)
        return at.replace(tzinfo=at.tzinfo or UTC)
    except (ValueError, OverflowError):
        return None


def _read_results(response: HttpResponse, users: Sequence[MentorScenarios]) -> EngineResponse:
    document = _read_json(response)
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        raise EngineTransientError("engine_bad_answer", "expected an object with a list of results")
    answered: dict[Pair, EvaluationResult | None] = {
        (user_id, scenario_type): None for user_id, scenario_types, _ in users for scenario_type in scenario_types
    }
    retryable: set[Pair] = set()
    for result in results:
        # A result that is no object, or lacks a member, or has one of another type, matches no pair.
        try:
            pair = result["user_id"], result["scenario_type"]
            if pair not in answered:
                pair = pair[0].lower(), pair[1]  # a UUID in another case, which is the same UUID
            if answered.get(pair, pair) is None:  # it has no result yet: the first that can be read stands
                answered[pair] = read = _result_of(pair, result)
                if read is not None and read.outcome == "failed" and _error_of(result).get("retryable") is True:
                    retryable.add(pair)
        except (TypeError, KeyError, IndexError, AttributeError):
            continue
    read_pairs = len(answered) - [*answered.values()].count(None)
    return EngineResponse(answered, retryable, dropped=len(results) - read_pairs)


def _read_json(response: HttpResponse) -> Any:
    try:
        return orjson.loads(response.content)
    except ValueError:
        # It may still be JSON: half of a surrogate pair, which orjson does not take, is no reason to lose a whole call.
        try:
            return json.loads(response.content)
        except (ValueError, RecursionError) as error:
            # What the HTTP client cannot unpack arrives packed.
            coding = response.header("content-encoding")
            found = type(error).__name__ if coding is None else f"Content-Encoding: {sanitize(coding, limit=40)}"
            raise EngineTransientError("engine_bad_answer", f"expected JSON, found {found}") from error


def _result_of(pair: Pair, result: dict[str, Any]) -> EvaluationResult | None:
    said = result["outcome"]
    outcome = _PLAIN.get(said)
    if outcome is None:
        return _failure_of(pair, result) if said == "failed" else None
    notification_id = result.get("notification_id")
    if notification_id is not None:
        notification_id = _id_of(notification_id)
    user_id, scenario_type = pair
    # Past the constructor, which takes twice as long: there is one of these for each pair.
    return tuple.__new__(EvaluationResult, (user_id, scenario_type, outcome, 1, None, None, notification_id))


def _failure_of(pair: Pair, result: dict[str, Any]) -> EvaluationResult:
    error = _error_of(result)
    code, message = error.get("code"), error.get("message")
    return EvaluationResult(
        *pair,
        "failed",
        error_code=_code_of(code) if isinstance(code, str) and code else "engine_failed",
        error_message=harmless(message) if isinstance(message, str) else None,
    )


def _error_of(result: dict[str, Any]) -> dict[str, Any]:
    error = result.get("error")
    return error if isinstance(error, dict) else {}


def _id_of(value: object) -> str | None:
    if isinstance(value, str) and _PLAIN_ID.fullmatch(value):
        return value
    # Python takes true and false for numbers.
    return harmless(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _code_of(text: str) -> str:
    """Returns an engine's code without the ids in it: `user-4711081` is the cause `user-…`, `e1001` stays.

    Cut first: looking for addresses takes time with the square of the length.
    """
    code = _ID_IN_A_CODE.sub("…", _EMAIL.sub("address", text[: 4 * MAX_CODE_LENGTH].lower()))
    return _NOT_A_CODE.sub("_", code)[:MAX_CODE_LENGTH]


def harmless(text: str) -> str:
    """Returns foreign text fit to be stored: one line, valid UTF-8, bounded, without e-mail addresses."""
    text = text[: 4 * MAX_ERROR_LENGTH].encode("utf-8", "replace").decode()
    return _EMAIL.sub("[address]", _CONTROL.sub(" ", text))[:MAX_ERROR_LENGTH]
