"""What callers may send, and answers that are no invocation (shared/invocation.py); OpenAPI is generated from both."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from functions.runs.requests import Note, RequestShape
from shared.invocation import Id, ListedInvocation, Moment, Shape, Status, Trigger, UserResult


def _require_plus(value: object) -> object:
    """Refuses an offset without its `+`: a query's `+` stands for a space."""
    if isinstance(value, str) and re.search(r" \d\d:?\d\d$", value[16:]):
        raise ValueError("expected an RFC 3339 time with an offset; a + in a query has to be written %2B")
    return value


QueryMoment = Annotated[Moment, BeforeValidator(_require_plus)]


def _unquote(value: object) -> object:
    """Accepts both `"abc"`, a structured field's string as specified, and `abc`, as it is often sent."""
    if isinstance(value, str) and len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r'\\(["\\])', r"\1", value[1:-1])
    return value


IdempotencyKey = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!-~]+$"), BeforeValidator(_unquote)]
MaxAgeHours = Annotated[float, Field(gt=0, le=24 * 366)]
Cursor = Annotated[str, Field(max_length=300, description="`pagination.next_cursor` of the page before")]


class StartRequest(RequestShape):
    """The body of `POST /`; an empty object means the slot that is due."""

    scheduled_for: Moment | None = Field(
        default=None,
        description="The slot. It has to be the one that is due or one that was opened before.",
    )


class InvocationChange(RequestShape):
    """The members to change; others keep their values."""

    # Not null by default: whether a member was sent is in `model_fields_set`, and null means something for a note.
    status: Literal["cancelled"] = Field(default_factory=lambda: "cancelled", description="Cancels an open invocation.")
    note: Note | None = Field(default=None, description="For people; null takes it away.")


class ListQuery(RequestShape):
    status: list[Status] | None = Field(default=None, description="Any of these.")
    trigger: list[Trigger] | None = Field(default=None, description="Any of these.")
    scheduled_from: QueryMoment | None = Field(default=None, description="The earliest slot, itself included.")
    scheduled_to: QueryMoment | None = Field(default=None, description="The latest slot, itself included.")
    user_id: Id | None = Field(default=None, description="Only runs that this mentor was in, with the results.")
    slots: bool = Field(default=False, description="Return as well which slots have no run, and the next slot.")
    limit: int = Field(default=20, ge=1, le=100)
    cursor: Cursor | None = None


class MentorsQuery(RequestShape):
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: Cursor | None = None


class Slots(Shape):
    """Slots of the schedule that no run shows."""

    missed: list[Moment] = Field(
        description="Without a run, the latest first, at most 100: from the oldest scheduled run of this page up to "
        "the page before, on the first page up to five minutes ago. Where the schedule changed nothing is claimed."
    )
    next: Moment = Field(description="The next one, by the schedule in force.")


class Pagination(Shape):
    limit: int
    next_cursor: str | None = Field(description="Null at the end.")


class InvocationPage(Shape):
    data: list[ListedInvocation] = Field(
        description="With user_id a page searches 2,000 runs at most: it may be short, or empty, before the end."
    )
    pagination: Pagination
    slots: Slots | None = Field(default=None, description="Only with `slots=true`.")


class Idle(Shape):
    """The latest slot has no invocation and is not due."""

    status: Literal["idle"]


class Mentor(Shape):
    """A mentor that would be evaluated now, and for what."""

    user_id: Id
    segments: list[str]
    scenario_types: list[str] = Field(description="None: no scenario applies, or `skip_reason` says why.")
    skip_reason: str | None = Field(description="`invalid_segments`: no row of the user's can be used.")


class MentorPage(Shape):
    """A page of mentors, in the order of their ids."""

    data: list[Mentor]
    pagination: Pagination
    user_id_missing: int = Field(description="At the end, rows of the view without a user id; on other pages 0.")


class PairResult(UserResult):
    user_id: Id
    attempts: int = Field(description="Calls to the engine that carried it.")


class BatchResults(Shape):
    """One result for each pair."""

    results: list[PairResult]


class Health(Shape):
    status: Literal["ok"]
    version: str


class LastRun(Shape):
    """A scheduled run ended well within the time."""

    status: Literal["ok"]
    max_age_hours: float
    scheduled_for: Moment
    finished_at: Moment
    run_status: Literal["success", "partial"]


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    code: str = Field(description="A stable name of the problem.")
    detail: str = Field(description="What was expected and what was found.")
    field: str | None = Field(default=None, description="The member, header or parameter at fault.")
