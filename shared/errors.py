"""Every error that crosses a border of this code.

    SchedulerError
    ├── ConfigError                 the environment holds no usable configuration
    ├── RequestError                the caller's request cannot be served; carries the HTTP answer
    ├── DeadlineExceededError       the slice's time budget ended before the work did
    ├── AlertNotSentError           the alerts' webhook did not take a message; carries a stable code
    ├── DatabaseError
    │   ├── DatabaseUnavailableError    away, or too busy: try again
    │   │   └── DatabaseTimeoutError        it answers, and gave this call up: its statement or lock timeout
    │   ├── DatabaseRefusedError        it answered no: a wrong key, a missing migration, a defect of ours
    │   └── MentorsViewError            the view `active_peer_mentors` cannot be read as it is
    └── EngineError                 carries a stable code
        ├── EngineTransientError        this call failed, a repeat may not: time-out, refused, reset, 408, 429, 5xx
        ├── InvalidEngineRequestError   something in this very call is not acceptable: 400, 413, 422
        ├── EngineAccessError           the engine refuses every call: 401, 403, 404
        └── EngineUnavailableError      the engine is down

Foreign errors are translated where they arise (`database.py`, `http_client.py`, `engine_client.py`,
`engine_response.py`, `webhook.py`) and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence


class SchedulerError(Exception):
    """The root of this tree."""


class ConfigError(SchedulerError):
    """The environment holds no usable configuration; the text names every key and never a secret's value.

    Args:
        problems: one for each setting that is missing or unusable.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n  ".join(["The configuration is not usable:", *problems]))
        self.problems = problems


class RequestError(SchedulerError):
    """The caller's request cannot be served.

    Args:
        status: the HTTP status to answer with.
        code: a stable, machine-readable name of the problem.
        detail: what was expected and what was found, for a person.
        field: the member, header or parameter at fault, if one is.
        headers: headers that belong to the answer, such as `WWW-Authenticate`.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, field: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.headers = headers or {}


class DeadlineExceededError(SchedulerError):
    """The slice's time budget ended before the work did."""


class AlertNotSentError(SchedulerError):
    """The alerts' webhook did not take a message, or did not say so.

    Args:
        code: a stable name of the cause; neither the webhook's URL nor its words are in it.
    """

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
    """The database or its Data API is away or too busy; the same call may succeed later."""

    is_outage = True
    event = "database_unavailable"


class DatabaseTimeoutError(DatabaseUnavailableError):
    """The database answered, and gave the call up: its statement timeout or lock timeout.

    Args:
        code: the SQLSTATE.
    """

    is_outage = False
    event = "database_timeout"

    def __init__(self, code: str) -> None:
        super().__init__(f"the Data API answered {code}: the call did not finish in the time that the database allows")
        self.code = code


class DatabaseRefusedError(DatabaseError):
    """The Data API answered that it will not do this.

    Args:
        code: the SQLSTATE or PostgREST code, or a name of our own: `invalid_api_key`, `answer_too_large`.
        message: the database's own words, where it has any; for the log, never for a caller.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class MentorsViewError(DatabaseError):
    """The view `active_peer_mentors` has the wrong columns, or reading it fails; only a change of the view helps.

    Args:
        detail: what was expected and what was found; holds no value of a row, so callers may read it.
    """

    event = "mentors_view_invalid"


class EngineError(SchedulerError):
    """A call to the scenario trigger engine failed.

    Args:
        code: a stable name of the cause, as it is recorded with the failed pairs.
        message: for the log and the record; holds no answer body, which may hold personal data.
        retry_after: the engine's Retry-After in seconds, if any.
        overloaded: whether the failure says that fewer calls at a time would be better.
    """

    def __init__(self, code: str, message: str, *, retry_after: float | None = None, overloaded: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.overloaded = overloaded

    @property
    def is_global(self) -> bool:
        """Whether it is about all calls: 429, and 503 with Retry-After, say nothing about the users of the call."""
        return self.code == "engine_http_429" or (self.overloaded and self.retry_after is not None)


class EngineTransientError(EngineError):
    """This call failed; the same call may succeed later.

    `deadline_exceeded`: the deadline passed before the maximum of attempts, so no user has failed.
    """

    deadline_exceeded = False


class InvalidEngineRequestError(EngineError):
    """Something in this very call is not acceptable to the engine."""


class EngineAccessError(EngineError):
    """The engine refuses every call: a wrong token, a wrong address."""


class EngineUnavailableError(EngineError):
    """The engine is down; no pair fails by it."""
