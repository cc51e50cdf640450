"""The shape of an invocation: what the SQL functions return, what slices log and send, and what callers get.

Members that a shape does not name are ignored: an upgrade changes the database before the function.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

Status = Literal["pending", "running", "success", "partial", "failed", "cancelled", "skipped"]
Trigger = Literal["schedule", "manual", "retry"]
PairOutcome = Literal["triggered", "not_triggered", "suppressed", "skipped", "failed", "not_evaluated"]


def _require_uuid(value: object) -> object:
    """Refuses braces, URNs and other spellings, which pydantic accepts."""
    if isinstance(value, str) and not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value):
        raise ValueError("expected a UUID such as 0171e38f-30f1-5e6c-9a4d-4b6f0a3c2d10")
    return value


def _require_time(value: object) -> object:
    """Refuses numbers, which pydantic reads as seconds since 1970."""
    is_text = isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d.*", value)
    if not is_text and not isinstance(value, datetime):
        raise ValueError("expected an RFC 3339 time with an offset")
    return value


def _to_utc(moment: datetime) -> datetime:
    """Converts to UTC: PostgreSQL accepts fewer offsets than RFC 3339 allows."""
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("expected a time between the years 1 and 9999 in UTC") from error


Id = Annotated[UUID, BeforeValidator(_require_uuid)]
Moment = Annotated[AwareDatetime, BeforeValidator(_require_time), AfterValidator(_to_utc)]


class Shape(BaseModel):
    """A value that SQL returns."""

    # Validators are built when they are first needed: a start builds none, and a scheduled run few of them.
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, defer_build=True)


class Counts(Shape):
    """Outcomes of an invocation's pairs; the last six add up to `evaluations` once it has ended."""

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

    @property
    def unfinished(self) -> int:
        """Returns the number of pairs without a result."""
        return self.failed + self.not_evaluated


class SkipReasons(Shape):
    """Rows of the view `active_peer_mentors` that led to no evaluation, by reason."""

    no_scenario_applies: int
    user_id_missing: int
    invalid_segments: int = Field(
        description="Of users in a batch: their pairs are `skipped`, unless another row of the same user can be used."
    )


class Cause(Shape):
    """One cause of failures."""

    code: str
    count: int = Field(description="Evaluations.")
    is_lower_bound: bool = Field(
        description="There may be more of this cause: some batches had more causes than the 20 that a batch keeps."
    )


class FailureCause(Cause):
    """One cause of failures, and some of the users affected."""

    message: str | None = Field(description="Of one of them.")
    sample_user_ids: list[Id] = Field(description="10 at most.")


class OtherFailures(Shape):
    """The failures that the counts of the causes shown do not include."""

    count: int = Field(description="Evaluations; with the counts of `failures` it makes `counts.failed`.")


class InvocationState(Shape):
    """One run, as it is now, without texts of people and engines, and without user ids."""

    id: Id
    trigger: Trigger
    triggered_by: str = Field(description="`pg_cron`, `cloud_scheduler`, or the caller: a token's name, a user's id.")
    status: Status
    dry_run: bool
    deduplicated: bool = Field(default=True, description="False only in the answer to the call that opened it.")
    scheduled_for: Moment
    invoked_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    expires_at: Moment
    duration_ms: int | None = Field(description="From its start to its end; null while it is open.")
    lateness_seconds: int | None = Field(description="From its slot to its start.")
    retry_of: Id | None
    error_code: str | None = Field(description="Why it ended as it did, or what it waits for.")
    users_evaluated: int = Field(description="Mentors with at least one pair that was evaluated.")
    notifications_dispatched: int = Field(description="`counts.triggered`; 0 for a dry run.")
    mentors_remaining: int = Field(description="Mentors who were read and whose batch is not recorded.")
    pages_processed: int = Field(description="Pages of mentors that were read.")
    counts: Counts
    skip_reasons: SkipReasons

    @property
    def is_open(self) -> bool:
        """Returns whether there is still work to do."""
        return self.status in ("pending", "running")

    @property
    def log_fields(self) -> dict[str, Any]:
        """Returns the fields that each log line about this invocation has."""
        same = self.model_dump(include={"trigger", "triggered_by", "status", "lateness_seconds", "error_code"})
        return {"invocation_id": str(self.id), "slot": self.scheduled_for.isoformat(), **same}

    @property
    def totals(self) -> dict[str, Any]:
        """Returns the published totals, which `POST /` answers and the log has at a run's end."""
        return {
            "completed": not self.is_open,
            "total_active_mentors": self.counts.mentors,
            "total_evaluated": self.users_evaluated,
            "total_dispatched": self.notifications_dispatched,
            "total_suppressed": self.counts.suppressed,
            "total_errors": self.counts.failed,
        }


class InvocationSummary(InvocationState):
    """One run, as a list shows it."""

    requested_by: str | None = Field(description="The person that a manual run's request named; not checked.")
    reason: str | None = Field(description="Why a manual run was requested.")
    error_message: str | None = Field(
        description="Of an `error_code` about the engine: what was wrong; of `marked_failed`: what its caller gave."
    )
    note: str | None


class Invocation(InvocationSummary):
    """One run, as it is now."""

    scenarios: dict[str, dict[PairOutcome, int]] = Field(description="Per scenario type; zeros are left out.")
    failures: list[FailureCause] = Field(description="The 20 commonest causes, the commonest first.")
    other_failures: OtherFailures


class UserResult(Shape):
    """The result of one pair; the outcome is null while it is open."""

    scenario_type: str
    outcome: PairOutcome | None
    error_code: str | None = Field(description="Of a failure the cause, of a skipped pair the reason.")
    error_message: str | None
    notification_id: str | None


class ListedInvocation(InvocationSummary):
    """An invocation in a list; `results` are those of the mentor in the list's filter."""

    results: list[UserResult] = Field(default=[])


class ChosenBy(Shape):
    """What the run was opened for; null is all active mentors, and all scenario types that apply."""

    users: int | None = Field(description="How many were chosen.")
    sample_user_ids: list[Id] = Field(description="10 of them at most.")
    scenario_types: list[str] | None


class DispatchAnswers(Shape):
    """How often the function returned one answer to the database's calls for a slice; no status: none yet."""

    status_code: int | None
    error: str | None
    count: int
    first_at: Moment
    last_at: Moment


class BatchResult(Shape):
    """One batch; `status` is `abandoned` where the run ended before it was evaluated."""

    batch_index: int = Field(description="From 1, as `batch_no` in the log.")
    user_count: int
    notifications_sent: int
    failed: int = Field(description="Evaluations.")
    duration_ms: int | None
    status: Literal["open", "done", "abandoned"]


class RetryLeft(Shape):
    """What a retry would evaluate: what is left of a run and its retries."""

    invocation_id: Id = Field(description="The run that it would read: the newest of them that was not dry.")
    mentors: int | None = Field(description="How many are left; null where that run did not read all of its mentors.")


class InvocationDetail(Invocation):
    """One run with everything that is known of it."""

    batch_results: list[BatchResult] = Field(description="1,000 at most, in their order.")
    request: ChosenBy
    config: dict[str, Any] = Field(description="The settings in force when it was opened.")
    enumeration_done: bool = Field(description="All mentors of the run were read.")
    retry: RetryLeft | None = Field(
        description="Null where no retry can be opened: nothing is left, the run or a retry is open, or it is too late."
    )
    not_evaluated_user_ids: list[Id] = Field(description="10 of those at most.")
    dispatches: list[DispatchAnswers] = Field(description="From its slot to its end, the 20 latest, the latest first.")
