"""Every error that crosses a border of this code.

    SchedulerError
    ├── ConfigError                 the environment holds no usable configuration
    ├── RequestError                the caller's request cannot be served; carries the HTTP answer
    ├── UnknownCallerError          an access token proves nothing: another project's, expired, forged
    ├── DeadlineExceededError       the slice's time budget ended before the work did
    ├── AlertNotSentError           the webhook did not accept an alert, or did not confirm it; carries a stable code
    ├── DatabaseError
    │   ├── DatabaseUnavailableError    away, or too busy: try again
    │   │   └── DatabaseTimeoutError        it answers, but cancelled this call: its statement or lock timeout
    │   ├── DatabaseRefusedError        it refused the call: a wrong key, a missing migration, a defect
    │   └── MentorsViewError            the view `active_peer_mentors` cannot be read as it is
    └── EngineError                 carries a stable code
        ├── EngineTransientError        this call failed, a repeat may not: time-out, refused, reset, 408, 429, 5xx
        ├── EngineOutcomeUnknownError   as that, but the engine may have acted, and a repeat might make it act again
        ├── InvalidEngineRequestError   something in this very call is not acceptable: 400, 413, 422
        ├── EngineAccessError           the engine refuses every call, a wrong token or address: 401, 403, 404
        └── EngineUnavailableError      the engine is down; no pair fails by it

Foreign errors are translated where they arise (`database.py`, `http_client.py`, `engine_client.py`,
`engine_response.py`, `webhook.py`) and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

# Also known to the SQL: retries leave out pairs that failed by it, unless the request includes them.
OUTCOME_UNKNOWN = "outcome_unknown"


class SchedulerError(Exception):
    """The root of this tree."""


class ConfigError(SchedulerError):
    """Names every setting that is missing or unusable, each with its problem, and never a secret's value."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n  ".join(["The configuration is not usable:", *problems]))
        self.problems = problems


class RequestError(SchedulerError):
    """Carries the HTTP answer: a stable code, what was expected and found, and the member or header at fault."""

    def __init__(
        self, status: int, code: str, detail: str, *, field: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.headers = headers or {}


class UnknownCallerError(SchedulerError):
    """Says what was expected of an access token and what was wrong with it; holds no part of the token's signature."""


class DeadlineExceededError(SchedulerError):
    """The slice's time budget ended before the work did."""


class AlertNotSentError(SchedulerError):
    """Carries a stable name of the cause; neither the webhook's URL nor its words are in it."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class DatabaseError(SchedulerError):
    """A call to the Data API failed.

    `is_outage`: every other call would fail, too; else the failure says nothing about other calls.
    `event`: what the log, and the answer to a caller, call it.
    """

    is_outage = False
    event = "database_refused"


class DatabaseUnavailableError(DatabaseError):
    """The same call may succeed later."""

    is_outage = True
    event = "database_unavailable"


class DatabaseTimeoutError(DatabaseUnavailableError):
    """Carries the SQLSTATE."""

    is_outage = False
    event = "database_timeout"

    def __init__(self, code: str) -> None:
        super().__init__(f"the Data API answered {code}: the call did not finish in the time that the database allows")
        self.code = code


class DatabaseRefusedError(DatabaseError):
    """Carries the SQLSTATE or PostgREST code, `invalid_api_key` or `answer_too_large`; no caller may read its text."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class MentorsViewError(DatabaseError):
    """Says what was expected and what was found; holds no value of a row, so callers may read it."""

    event = "mentors_view_invalid"


class EngineError(SchedulerError):
    """Carries a stable code and a message, which are recorded; of an answer's body they hold a cleaned excerpt at most.

    `retry_after`: the engine's, in seconds; `overloaded`: fewer calls at a time would be better.
    """

    def __init__(self, code: str, message: str, *, retry_after: float | None = None, overloaded: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.overloaded = overloaded

    @property
    def is_global(self) -> bool:
        """Returns whether it is about all calls: 429, and 503 with Retry-After, are not about the users of the call."""
        return self.code == "engine_http_429" or (self.overloaded and self.retry_after is not None)


class EngineTransientError(EngineError):
    """A repeat may succeed.

    `deadline_exceeded`: the deadline passed before the maximum of attempts, so no user has failed.
    `may_have_acted`: the call may have reached the engine, which may have done what it asks for.
    `dropped`: results in the answer that are not of the call.
    """

    deadline_exceeded = False

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_after: float | None = None,
        overloaded: bool = False,
        may_have_acted: bool = True,
        dropped: int = 0,
    ) -> None:
        super().__init__(code, message, retry_after=retry_after, overloaded=overloaded)
        self.may_have_acted = may_have_acted
        self.dropped = dropped


class EngineOutcomeUnknownError(EngineError):
    """The engine does not promise idempotency, and may have acted on this call: it must not be sent again."""

    def __init__(self, cause: EngineTransientError) -> None:
        message = f"the engine may have acted, and the call is not repeated: {cause.message}"
        super().__init__(OUTCOME_UNKNOWN, message)
        self.cause = cause


class InvalidEngineRequestError(EngineError):
    """Something in this very call is not acceptable to the engine."""


class EngineAccessError(EngineError):
    """The engine refuses every call."""


class EngineUnavailableError(EngineError):
    """The engine is down."""
