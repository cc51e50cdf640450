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
MAX_EXCERPT_LENGTH = 200
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
_ID = re.compile(
    r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|(?<![0-9a-z])[0-9a-f]{32}(?![0-9a-z])|[0-9]{6,}", re.IGNORECASE
)
CHECK_ACCESS = "; check its URL and token"
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


def _require_success(response: HttpResponse, *statuses: int) -> None:
    """Raises what another status means, and why there is no body where it could not be read."""
    status = response.status
    if status in statuses:
        if response.unreadable is not None:
            raise response.unreadable
        return
    excerpt = _excerpt(response)
    code = f"engine_http_{status}"
    message = f"the engine answered {status}{excerpt and f': {excerpt}'}"
    if status in (408, 429) or status >= 500:
        raise EngineTransientError(
            code,
            message,
            retry_after=_retry_after(response),
            overloaded=status in (429, 503),
            may_have_acted=status not in (408, 429, 503),
        )
    if status in (401, 403, 404) or 300 <= status < 400:
        raise EngineAccessError(code, message + CHECK_ACCESS)
    if status >= 400:
        raise InvalidEngineRequestError(code, message)
    expected = " or ".join(map(str, statuses))
    raise EngineTransientError("engine_bad_answer", f"expected status {expected}, found {status}")


def _excerpt(response: HttpResponse) -> str:
    """Returns what the engine said of a failure: a problem's title and detail, or a message; without ids in it."""
    try:
        document = _read_json(response)
    except EngineTransientError:
        return ""
    if not isinstance(document, dict):
        return ""
    parts = [document.get("title"), document.get("detail")]
    if not any(parts):
        parts = [document.get("message") or _error_of(document).get("message")]
    said = ": ".join(part[: 4 * MAX_EXCERPT_LENGTH] for part in parts if isinstance(part, str) and part)
    return sanitize(_ID.sub("…", harmless(said)), limit=MAX_EXCERPT_LENGTH)


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


def read_results(response: HttpResponse, users: Sequence[MentorScenarios]) -> EngineResponse:
    """Returns the result of each pair of a `batch` call; raises what `EngineClient.evaluate` says of the answer."""
    _require_success(response, 200)
    document = _read_json(response)
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        raise EngineTransientError("engine_bad_answer", "expected an object with a list of results")
    answered: dict[Pair, EvaluationResult | None] = {
        (user_id, scenario_type): None for user_id, scenario_types, *_ in users for scenario_type in scenario_types
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


def read_decision(response: HttpResponse, users: Sequence[MentorScenarios], *, dry_run: bool) -> EngineResponse:
    """Returns the result of the pair of a `single` call; raises what `EngineClient.evaluate` says of the answer."""
    _require_success(response, 200, 201)
    ((user_id, (scenario_type,), *_),) = users
    document = _read_json(response)
    answered = document if isinstance(document, dict) else {}
    found_user, found_type, should_notify = map(answered.get, ("user_id", "scenario_type", "should_notify"))
    if not isinstance(found_user, str) or not isinstance(found_type, str) or not isinstance(should_notify, bool):
        expected = "expected an object with user_id, scenario_type and should_notify, true or false"
        raise EngineTransientError("engine_bad_answer", expected)
    if (found_user.lower(), found_type) != (user_id.lower(), scenario_type):
        raise EngineTransientError("engine_bad_answer", "expected the pair of the call, found another", dropped=1)
    pair = (user_id, scenario_type)
    notification_id = _id_of(answered.get("id")) if should_notify and not dry_run else None
    outcome: Outcome = "triggered" if should_notify else "not_triggered"
    return EngineResponse({pair: EvaluationResult(*pair, outcome, notification_id=notification_id)}, (), dropped=0)


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
    code = _ID.sub("…", _EMAIL.sub("address", text[: 4 * MAX_CODE_LENGTH].lower()))
    return _NOT_A_CODE.sub("_", code)[:MAX_CODE_LENGTH]


def harmless(text: str) -> str:
    """Returns foreign text fit to be stored: one line, valid UTF-8, bounded, without e-mail addresses."""
    text = text[: 4 * MAX_ERROR_LENGTH].encode("utf-8", "replace").decode()
    return _EMAIL.sub("[address]", _CONTROL.sub(" ", text))[:MAX_ERROR_LENGTH]
