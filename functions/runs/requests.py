"""Requests for manual runs and evaluation-batches."""

from typing import Annotated, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

from shared.invocation import Id

MAX_CHOSEN_MENTORS = 10_000
MAX_BATCH_MENTORS = 1_000
MAX_NOTE_LENGTH = 2_000
Value = TypeVar("Value", str, UUID)


def _distinct(values: list[Value]) -> list[Value]:
    """Sorts and removes repeats, so that equal requests have equal digests."""
    return sorted(set(values))


# PostgreSQL stores no NUL.
Note = Annotated[str, Field(max_length=MAX_NOTE_LENGTH, pattern=r"^[^\x00]*$")]
Reason = Annotated[str, Field(max_length=300, pattern=r"^[^\x00]*$")]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]*$")]
ScenarioName = Annotated[str, Field(min_length=1, max_length=100)]
ChosenTypes = Annotated[list[ScenarioName], Field(min_length=1, max_length=100), AfterValidator(_distinct)]
RunMentors = Annotated[list[Id], Field(min_length=1, max_length=MAX_CHOSEN_MENTORS), AfterValidator(_distinct)]
BatchMentors = Annotated[list[Id], Field(min_length=1, max_length=MAX_BATCH_MENTORS), AfterValidator(_distinct)]


class RequestShape(BaseModel):
    """A JSON object or a query; members that it does not name are refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class RunRequest(RequestShape):
    """The run to open; an empty object means all active mentors and all scenario types that apply."""

    user_ids: RunMentors | None = Field(
        default=None, description="Only these mentors. Those who are unknown or not active are `skipped`."
    )
    scenario_types: ChosenTypes | None = Field(default=None, description="Only these scenario types, where they apply.")
    dry_run: StrictBool = Field(default=False, description="Evaluate without notifying. A retry of a dry run is dry.")
    retry_of: Id | None = Field(
        default=None,
        description="Evaluate what this invocation and its retries have left, and nothing else: failed, not evaluated, "
        "not read. The new run's `retry_of` is the newest of them that has ended and was not dry.",
    )
    include_unknown: StrictBool = Field(
        default=False,
        description="Only with retry_of: also what failed as `outcome_unknown`, and may make the engine act again.",
    )
    reason: Reason | None = Field(default=None, description="Why it is requested.")
    triggered_by: Name | None = Field(
        default=None, description="Who requests it; kept as `requested_by`. `triggered_by` is the authenticated caller."
    )
    note: Note | None = Field(default=None, description="For people.")


class BatchRequest(RequestShape):
    """The mentors to evaluate now."""

    user_ids: BatchMentors = Field(description="At most EVALUATION_BATCH_SIZE of them.")
    scenario_types: ChosenTypes | None = Field(default=None, description="Only these scenario types.")
    dry_run: StrictBool = Field(default=False, description="Evaluate without notifying.")
