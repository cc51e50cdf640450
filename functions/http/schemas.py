"""What callers may send, and answers that are no invocation (shared/invocation.py); OpenAPI is generated from both."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from functions.runs.requests import Name, Note, Reason, RequestShape
from shared.audit import AuditAction, AuditEntry
from shared.invocation import Id, InvocationState, ListedInvocation, Moment, Shape, Status, Trigger, UserResult
from shared.pauses import EnginePause, Pause
from shared.scenario_table import ScenarioConfig
from shared.schedule import cron_expression

StoredOutcome = Literal["triggered", "suppressed", "skipped", "failed"]
# Beyond so many invocations only a cursor leads: the database steps over all that come before a page.
MAX_OFFSET = 10_000


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


CronExpression = Annotated[str, Field(max_length=100), AfterValidator(cron_expression)]
_NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f-\x9f]*$"
# As the table's constraint.
MAX_CHARACTERS = 4_000


def _organization(name: str) -> str:
    if name.startswith("org:") or name != name.strip():
        raise ValueError("expected the NAME of a segment org:NAME, without org: and without space around it")
    return name


def _bounded(segments: list[str]) -> list[str]:
    if (length := sum(map(len, segments)) + len(segments)) > MAX_CHARACTERS:
        raise ValueError(f"expected at most {MAX_CHARACTERS:,} characters in all, found {length:,}")
    return segments


Organization = Annotated[
    str, Field(min_length=1, max_length=100, pattern=_NO_CONTROL_CHARACTERS), AfterValidator(_organization)
]
Segment = Annotated[str, Field(min_length=1, max_length=200, pattern=_NO_CONTROL_CHARACTERS)]
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
    status: Literal["cancelled", "failed"] = Field(
        default_factory=lambda: "cancelled",
        description="Ends an open invocation: what is not evaluated stays so. `failed`: as its caller's verdict.",
    )
    error_message: Reason | None = Field(default=None, description="With `status: failed`: why.")
    note: Note | None = Field(default=None, description="For people; null takes it away.")


class ListQuery(RequestShape):
    status: list[Status] | None = Field(default=None, description="Any of these.")
    trigger: list[Trigger] | None = Field(default=None, description="Any of these.")
    triggered_by: list[Name] | None = Field(default=None, description="Any of these.")
    scheduled_from: QueryMoment | None = Field(default=None, description="The earliest slot, itself included.")
    scheduled_to: QueryMoment | None = Field(default=None, description="The latest slot, itself included.")
    user_id: Id | None = Field(default=None, description="Only runs that this mentor was in, with the results.")
    slots: bool = Field(default=False, description="Return as well which slots have no run, and the next slot.")
    limit: int = Field(default=20, ge=1, le=100)
    page: int | None = Field(
        default=None,
        ge=1,
        le=MAX_OFFSET + 1,
        description="From 1; not with cursor or user_id. At most 10,000 invocations come before it, a cursor leads on.",
    )
    cursor: Cursor | None = None


class MentorsQuery(RequestShape):
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: Cursor | None = None


class Slots(Shape):
    """Slots of the schedule that no run shows."""

    missed: list[Moment] = Field(
        description="Without a run, the latest first, at most 100: from the oldest scheduled run of this page up to "
        "the page before, without a cursor up to five minutes ago. Where the schedule changed nothing is claimed."
    )
    next: Moment = Field(description="The next one, by the schedule in force.")


class Pagination(Shape):
    limit: int
    next_cursor: str | None = Field(description="Null at the end.")


class ListPagination(Pagination):
    page: int | None = Field(description="Null with a cursor or a mentor.")
    total: int | None = Field(description="Invocations that match the filters; null with a mentor.")


class InvocationPage(Shape):
    data: list[ListedInvocation] = Field(
        description="With user_id a page searches 2,000 runs at most: it may be short, or empty, before the end."
    )
    pagination: ListPagination
    slots: Slots | None = Field(default=None, description="Only with `slots=true`.")


class RunSummary(Shape):
    """One run after a slice, for holders of an invoke token: without texts of people and engines, or user ids."""

    id: Id
    status: Status
    scheduled_for: Moment
    deduplicated: bool = Field(description="False only in the answer to the call that opened it.")
    completed: bool = Field(description="It has ended.")
    total_active_mentors: int = Field(description="Read so far.")
    total_evaluated: int = Field(description="Mentors with at least one pair that was evaluated.")
    total_dispatched: int = Field(description="Notifications; 0 for a dry run.")
    total_suppressed: int = Field(description="Evaluations.")
    total_errors: int = Field(description="Evaluations that failed.")
    remaining: int = Field(description="Mentors who were read and whose batch is not recorded.")
    duration_ms: int = Field(
        description="From its start to its end, or to now while it is open; 0 if it never started."
    )
    error_code: str | None = Field(description="Why it ended as it did, or what it waits for.")

    @classmethod
    def of(cls, run: InvocationState, now: datetime) -> Self:
        """Returns the summary of a run."""
        took = (run.finished_at or now) - run.started_at if run.started_at else timedelta()
        members = run.model_dump(include=cls.model_fields.keys() & type(run).model_fields.keys())
        return cls(
            **run.totals,
            remaining=run.mentors_remaining,
            **members | {"duration_ms": max(0, round(took / timedelta(milliseconds=1)))},
        )


class EvaluationsQuery(RequestShape):
    """Filters and the place in the results of a run."""

    outcome: list[StoredOutcome] | None = Field(default=None, description="Any of these.")
    code: Name | None = Field(default=None, description="The cause of a failure, or the reason to skip.")
    scenario_type: Name | None = None
    limit: int | None = Field(default=None, ge=1, le=1000, description="100 by default.")
    cursor: Cursor | None = None


class PairResult(UserResult):
    user_id: Id
    attempts: int = Field(description="Calls to the engine that carried it.")


class EvaluationPage(Shape):
    """Results in the order of users and scenario types."""

    data: list[PairResult] = Field(
        description="A page searches 50,000 results at most: with filters it may be short, or empty, before the end."
    )
    pagination: Pagination


class AuditQuery(RequestShape):
    """Filters and the place in the audit."""

    invocation_id: Id | None = Field(default=None, description="Also of a run that is gone.")
    actor: Name | None = None
    action: AuditAction | None = None
    # An entry may have 48 KB: segments before and after, all characters escaped.
    limit: int = Field(default=100, ge=1, le=200)
    cursor: Cursor | None = None


class AuditPage(Shape):
    """Entries of the audit, the newest first."""

    data: list[AuditEntry]
    pagination: Pagination


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


class BatchResults(Shape):
    """One result for each pair."""

    results: list[PairResult]


class ConfigQuery(RequestShape):
    """Which row of a scenario type."""

    organization: Organization | None = Field(
        default=None, description="The row of mentors with the segment `org:NAME`; without it the row of all mentors."
    )


class ScenarioChange(RequestShape):
    """The members to change; null: not set. Others keep their values."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    enabled: StrictBool | None = Field(default=None, description="False always holds, whatever another row says.")
    segments: Annotated[list[Segment], Field(max_length=100), AfterValidator(_bounded)] | None = Field(
        default=None, description="The type applies to mentors in one of these; without any to all."
    )
    schedule: CronExpression | None = Field(
        default=None,
        description="A cron expression in EVALUATION_TIMEZONE: due at the first slot at or after it fires.",
    )


class ScenarioConfigs(Shape):
    """All scenario types, and the schedule whose slots they are evaluated at."""

    evaluation_schedule: str
    evaluation_timezone: str
    data: list[ScenarioConfig] = Field(
        description="Each type of SCENARIO_TYPES, followed by its organizations by name; then rows of other types."
    )


class ScheduleChange(RequestShape):
    """The members to change; others keep their values."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    # As in InvocationChange: null is no value of these two.
    paused: StrictBool = Field(
        default_factory=lambda: False,
        description="True pauses, or changes the end and the reason of the pause that is on; false resumes.",
    )
    retry_engine: StrictBool = Field(
        default_factory=lambda: False, description="True ends the engine's pause and requests a slice."
    )
    until: Moment | None = Field(
        default=None,
        description="With `paused: true`: when it ends, at most ten years from now; null: when it is resumed.",
    )
    reason: Reason | None = Field(default=None, description="With `paused: true`: why; null takes it away.")


class ScheduleState(Shape):
    """The schedule, and what keeps its slots from opening runs."""

    evaluation_schedule: str
    evaluation_timezone: str
    next_slots: list[Moment] = Field(description="The next 5 that will open a run; none in a pause without an end.")
    pause: Pause | None
    engine_pause: EnginePause | None = Field(description="It keeps no slot from opening: the run waits.")


class Health(Shape):
    status: Literal["ok"]
    version: str
    code_digest: str | None = Field(default=None, description="Of the deployed code. To callers with a token.")
    settings_digest: str | None = Field(default=None, description="Of the settings in effect. To callers with a token.")
    schedule: str | None = Field(default=None, description="Cron expression and time zone. To callers with a token.")


class LastRun(Shape):
    """A scheduled run ended well within the time."""

    status: Literal["ok"]
    max_age_hours: float
    scheduled_for: Moment
    finished_at: Moment
    run_status: Literal["success", "partial"]


class Delivery(Shape):
    """The webhook took the message."""

    delivered: Literal[True]


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    code: str = Field(description="A stable name of the problem.")
    detail: str = Field(description="What was expected and what was found.")
    field: str | None = Field(default=None, description="The member, header or parameter at fault.")
