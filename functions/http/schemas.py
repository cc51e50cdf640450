"""What callers may send and what they get; `/openapi.json` is made of what validates."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

MAX_CHOSEN_MENTORS = 10_000
MAX_BATCH_MENTORS = 1_000
MAX_NOTE_LENGTH = 2_000
MAX_MAX_AGE_HOURS = 24 * 366

Status = Literal["pending", "running", "success", "partial", "failed", "cancelled", "skipped"]
Trigger = Literal["schedule", "manual", "retry"]
PairOutcome = Literal["triggered", "not_triggered", "suppressed", "skipped", "failed", "not_evaluated"]

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d.*")


def _require_uuid(value: object) -> object:
    """pydantic would take braces, a URN and other spellings as well."""
    if isinstance(value, str) and not _UUID.fullmatch(value):
        raise ValueError("expected a UUID such as 0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10")
    return value


def _require_time(value: object) -> object:
    """pydantic would take a number for seconds since 1970."""
    if isinstance(value, datetime) or (isinstance(value, str) and _TIME.fullmatch(value)):
        return value
    raise ValueError("expected an RFC 3339 time with an offset")


def _require_plus(value: object) -> object:
    """A query's `+` stands for a space."""
    if isinstance(value, str) and re.search(r" \d\d:?\d\d$", value[16:]):
        raise ValueError("expected an RFC 3339 time with an offset; a + in a query has to be written %2B")
    return value


def _to_utc(moment: datetime) -> datetime:
    """PostgreSQL knows fewer offsets than RFC 3339 does."""
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("expected a time between the years 1 and 9999 in UTC") from error


Id = Annotated[UUID, BeforeValidator(_require_uuid)]
Moment = Annotated[AwareDatetime, BeforeValidator(_require_time), AfterValidator(_to_utc)]
QueryMoment = Annotated[Moment, BeforeValidator(_require_plus)]


def _unquote(value: object) -> object:
    """The field is specified as a structured field's string, `"abc"`, and often sent as `abc`."""
    if isinstance(value, str) and len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r'\\(["\\])', r"\1", value[1:-1])
    return value


IdempotencyKey = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[!-~]+$"), BeforeValidator(_unquote)]
# PostgreSQL stores no NUL.
Note = Annotated[str, Field(max_length=MAX_NOTE_LENGTH, pattern=r"^[^\x00]*$")]
ScenarioName = Annotated[str, Field(min_length=1, max_length=100)]
ChosenTypes = Annotated[list[ScenarioName], Field(min_length=1, max_length=100)]
DispatchId = Annotated[int, Field(ge=1, le=2**63 - 1)]
MaxAgeHours = Annotated[float, Field(gt=0, le=MAX_MAX_AGE_HOURS)]
Cursor = Annotated[str, Field(max_length=300, description="`next_cursor` of the page before")]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class StartRequest(_Shape):
    """What `POST /` may say; nothing asks for whatever is due."""

    scheduled_for: Moment | None = Field(
        default=None,
        description="The slot that is meant. It has to be the one that is due or one that was opened before.",
    )


class RunRequest(_Shape):
    """Which run is asked for; nothing asks for everybody who is active, for all that applies."""

    user_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_CHOSEN_MENTORS)] | None = Field(
        default=None, description="Only these mentors. Those who are unknown or not active are `skipped`."
    )
    scenario_types: ChosenTypes | None = Field(default=None, description="Only these scenario types, where they apply.")
    dry_run: StrictBool = Field(default=False, description="Evaluate; notify nobody. What retries a dry run is dry.")
    retry_of: Id | None = Field(
        default=None,
        description="Evaluate what this invocation left unfinished, and nothing else: failed, not evaluated, not read.",
    )
    note: Note | None = Field(default=None, description="For people.")


class InvocationChange(_Shape):
    """What is to be changed; members that are not given stay as they are."""

    # Not null by default: whether a member was sent is in `model_fields_set`, and null means something for a note.
    status: Literal["cancelled"] = Field(default_factory=lambda: "cancelled", description="Cancels an open invocation.")
    note: Note | None = Field(default=None, description="For people; null takes it away.")


class BatchRequest(_Shape):
    """Who is to be evaluated now."""

    user_ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_BATCH_MENTORS)] = Field(
        description="At most EVALUATION_BATCH_SIZE of them."
    )
    scenario_types: ChosenTypes | None = Field(default=None, description="Only these scenario types.")
    dry_run: StrictBool = Field(default=False, description="Evaluate, and notify nobody.")


class ListQuery(_Shape):
    """Filters and the place in the list."""

    status: list[Status] | None = Field(default=None, description="Any of these.")
    trigger: list[Trigger] | None = Field(default=None, description="Any of these.")
    scheduled_from: QueryMoment | None = Field(default=None, description="The earliest slot, itself included.")
    scheduled_to: QueryMoment | None = Field(default=None, description="The latest slot, itself included.")
    user_id: Id | None = Field(default=None, description="Only runs that this mentor was in, with the results.")
    slots: bool = Field(default=False, description="Say as well which slots have no run, and when the next one is.")
    limit: int = Field(default=20, ge=1, le=100)
    cursor: Cursor | None = None


class MentorsQuery(_Shape):
    """The place in the list of mentors."""

    limit: int = Field(default=100, ge=1, le=1000)
    cursor: Cursor | None = None


class Counts(_Shape):
    """What an invocation's pairs came to; the last six add up to `evaluations` once it has ended."""

    mentors: int = Field(description="Read so far, rows without a user id among them.")
    mentors_skipped: int = Field(description="Of these, how many are in no batch; `skip_reasons` say why.")
    batches: int
    batches_done: int
    evaluations: int = Field(description="Pairs of mentor and scenario type.")
    triggered: int
    not_triggered: int
    suppressed: int
    skipped: int
    failed: int
    not_evaluated: int


class SkipReasons(_Shape):
    """Rows of the view `active_peer_mentors` that led to no evaluation, by reason."""

    no_scenario_applies: int
    user_id_missing: int
    invalid_segments: int = Field(
        description="Of users in a batch: their pairs are `skipped`, unless another row of the same user can be used."
    )


class FailureCause(_Shape):
    """One cause of failures, and some of the users whom it was about."""

    code: str
    count: int = Field(description="Evaluations.")
    is_lower_bound: bool = Field(
        description="There may be more of this cause: some batches had more causes than the 20 that a batch keeps."
    )
    message: str | None = Field(description="Of one of them.")
    sample_user_ids: list[Id] = Field(description="10 at most.")


class OtherFailures(_Shape):
    """The failures that the counts of the causes shown do not hold."""

    count: int = Field(description="Evaluations; with the counts of `failures` it makes `counts.failed`.")


class InvocationSummary(_Shape):
    """One run, as it is now, for holders of an invoke token: without its note, and without user ids."""

    id: Id
    trigger: Trigger
    status: Status
    dry_run: bool
    deduplicated: bool = Field(default=True, description="False only in the answer to the call that opened it.")
    scheduled_for: Moment
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    expires_at: Moment
    lateness_seconds: int | None = Field(description="From its slot to its start.")
    retry_of: Id | None
    error: str | None = Field(description="Why it ended as it did, or what it waits for.")
    counts: Counts
    skip_reasons: SkipReasons

    @classmethod
    def of(cls, described: dict[str, Any], *, deduplicated: bool) -> Self:
        """Returns what of the database's description belongs to this shape.

        Args:
            described: the invocation as the database summarizes it.
            deduplicated: it had been opened before this call.

        Raises:
            ValidationError: the description leaves a member out.
        """
        members = {name: described[name] for name in cls.model_fields.keys() & described.keys()}
        return cls.model_validate(members | {"deduplicated": deduplicated})


class Invocation(InvocationSummary):
    """One run, as it is now."""

    error_message: str | None = Field(description="Where `error` is about the engine: what was wrong with it.")
    note: str | None
    scenarios: dict[str, dict[PairOutcome, int]] = Field(description="Per scenario type; zeros are left out.")
    failures: list[FailureCause] = Field(description="The 20 commonest causes, the commonest first.")
    other_failures: OtherFailures


class UserResult(_Shape):
    """What came of one pair; the outcome is null while it is open."""

    scenario_type: str
    outcome: PairOutcome | None
    error_code: str | None = Field(description="Of a failure the cause, of a skipped pair the reason.")
    error_message: str | None
    notification_id: str | None


class ListedInvocation(InvocationSummary):
    """An invocation in a list; `results` are the mentor's whom the list was filtered by."""

    error_message: str | None
    note: str | None
    results: list[UserResult] = Field(default=[])


class Slots(_Shape):
    """What the runs themselves cannot say of the schedule."""

    missed: list[Moment] = Field(
        description="Without a run, the latest first, at most 100: from the oldest scheduled run of this page up to "
        "the page before, on the first page up to five minutes ago. Where the schedule changed nothing is claimed."
    )
    next: Moment = Field(description="The next one, by the schedule in force.")


class InvocationPage(_Shape):
    """A page of the list, the newest first."""

    items: list[ListedInvocation] = Field(
        description="With user_id a page looks into 2,000 runs at most: it may be short, or empty, before the end."
    )
    next_cursor: str | None = Field(description="Null at the end.")
    slots: Slots | None = Field(default=None, description="If asked for.")


class ChosenBy(_Shape):
    """What was asked for; null is all active mentors, and all scenario types that apply."""

    users: int | None = Field(description="How many were chosen.")
    sample_user_ids: list[Id] = Field(description="10 of them at most.")
    scenario_types: list[str] | None


class DispatchAnswers(_Shape):
    """How often the function gave one answer to the database's calls for a slice; without a status it gave none yet."""

    status_code: int | None
    error: str | None
    count: int
    first_at: Moment
    last_at: Moment


class InvocationDetail(Invocation):
    """One run with all that is known of it."""

    request: ChosenBy
    config: dict[str, Any] = Field(description="The settings in force when it was opened.")
    enumeration_done: bool = Field(description="Everybody it is about was read.")
    not_evaluated_user_ids: list[Id] = Field(description="10 of those at most.")
    dispatches: list[DispatchAnswers] = Field(description="From its slot to its end, the 20 latest, the latest first.")


class Idle(_Shape):
    """The latest slot has no invocation and is not due."""

    status: Literal["idle"]


class Mentor(_Shape):
    """Who would be evaluated now, for what."""

    user_id: Id
    segments: list[str]
    scenario_types: list[str] = Field(description="None: no scenario applies, or `skip_reason` says why.")
    skip_reason: str | None = Field(description="`invalid_segments`: no row of the user's can be used.")


class MentorPage(_Shape):
    """A page of mentors, in the order of their ids."""

    items: list[Mentor]
    next_cursor: str | None = Field(description="Null at the end.")
    user_id_missing: int = Field(description="At the end, rows of the view without a user id; on other pages 0.")


class PairResult(UserResult):
    """What came of one pair."""

    user_id: Id
    attempts: int = Field(description="Calls to the engine that carried it.")


class BatchResults(_Shape):
    """One result for each pair."""

    results: list[PairResult]


class Health(_Shape):
    """It is up."""

    status: Literal["ok"]
    version: str


class LastRun(_Shape):
    """The night went well."""

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
