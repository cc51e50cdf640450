"""`run_evaluation_batch`: each user of a batch to the engine, and one user's failure costs only that user.

A call carries many users, so a call that fails says nothing yet about any one of them:

- What the engine refuses (400, 413, 422) is halved until the user it refuses stands alone.
- What keeps failing (5xx, time-outs) is put aside until the rest of the batch is through, and then halved as well; but
  a user is blamed only while the engine answers somebody else. If it answers nobody it is down, and nobody failed.
- A 503 is an overload until the contrary is shown: she is tried with no other call of ours in flight.
- What the engine leaves out or calls retryable is asked again, user by user.
- Whoever could not be asked as often as the policy says before the time was up is in the rest, and has not failed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from shared.engine_answers import Answer, Pair
from shared.errors import (
    EngineError,
    EngineRefusedCallError,
    EngineTransientError,
    EngineUnavailableError,
    OutOfTimeError,
)
from shared.evaluations import EvaluationBatch, EvaluationResult, MentorScenarios, Outcome
from shared.observability import log_event
from shared.side_by_side import side_by_side
from shared.time_budget import TimeBudget
from shared.trigger_engine import EvaluationContext, TriggerEngine

# How many users are tried alone before an engine that answered nobody is held to be down.
PROBES = 3
# How often a user has to be turned away by 503 while somebody else, asked about right after her, is not. Other workers
# may overload the engine as well: if it takes every second call, one in 65,000 is blamed by such bad luck.
TURNED_AWAY_ALONE = 8
TOO_BUSY = "engine_http_503"

Users = Sequence[MentorScenarios]
Call = Callable[[Users], Awaitable[Answer]]


class _UnsettledError(EngineTransientError):
    """The engine answered, but not for good."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of a batch.

    Args:
        results: one for each pair of everybody but `rest`, in the batch's order.
        rest: those for whom the time did not suffice; not all of them.
    """

    results: list[EvaluationResult]
    rest: tuple[str, ...] = ()


async def run_evaluation_batch(
    batch: EvaluationBatch,
    *,
    engine: TriggerEngine,
    budget: TimeBudget,
    users_per_call: int,
    types_per_call: int | None = None,
    max_deliveries: int,
) -> BatchResult:
    """Evaluates a batch's pairs.

    Args:
        batch: who is to be evaluated for what.
        engine: the scenario trigger engine.
        budget: how long this may take.
        users_per_call: how many users share a call.
        types_per_call: how many of a user's scenario types, at most; None: all of them.
        max_deliveries: on the last of so many deliveries what cannot be evaluated in time is failed, not given back;
            after it nothing is tried any more.

    Returns:
        What came of it. Whoever has not all of her results when the time budget ends is in the rest.

    Raises:
        OutOfTimeError: the time budget ended before anybody had all of hers; the batch is to be given back.
        EngineRejectedError: the engine turns us away altogether.
        EngineUnavailableError: the engine is down for everyone.
    """
    run = _BatchRun(batch, engine, budget)
    if batch.deliveries > max_deliveries:
        run.fail_unresolved("worker_lost", "the batch was delivered too often without a result")
        return run.so_far()
    try:
        await run.evaluate(_cut_into_calls(run.users, users_per_call, types_per_call))
    except OutOfTimeError:
        if batch.deliveries >= max_deliveries:
            run.fail_unresolved("time_budget_exceeded", "the time budget ended before the engine answered")
        result = run.so_far()
        if not result.results:
            raise
        return result
    finally:
        # Once for the batch: its calls may be as many as its users.
        if run.dropped:
            log_event(
                "engine_results_dropped",
                "Engine results that match no pair of the call, or cannot be read, were dropped",
                dropped=run.dropped,
            )
    return run.so_far()


class _BatchRun:
    """The state of one batch's evaluation: what is resolved, and who is under suspicion."""

    def __init__(self, batch: EvaluationBatch, engine: TriggerEngine, budget: TimeBudget) -> None:
        self._batch = batch
        self.users = [user for user in batch.users if user.skip_reason is None]
        self._engine = engine
        self._budget = budget
        self._context = EvaluationContext(batch.invocation_id, batch.scheduled_for, batch.engine_scope, batch.dry_run)
        # In the batch's order; None: not resolved yet.
        self._results: dict[Pair, EvaluationResult | None] = {
            (user_id, scenario_type): None
            for user_id, scenario_types, _ in batch.users
            for scenario_type in scenario_types
        }
        # Calls that carried a pair and left it without a result: empty for as long as all goes well.
        self._attempts: Counter[Pair] = Counter()
        # The last failure of each pair's calls, for those whose time runs out.
        self._causes: dict[Pair, EngineError] = {}
        # What the first tries left to be done.
        self._left_open: list[Callable[[], Awaitable[None]]] = []
        self._suspects: list[Users] = []
        # Somebody cannot be blamed yet: the time was up before she was asked often enough.
        self._too_late = False
        # Results that match no pair of the call, or that cannot be read.
        self.dropped = 0
        for user in batch.users:
            if user.skip_reason is not None:
                self._record(user, "skipped", user.skip_reason)

    def so_far(self) -> BatchResult:
        """The results of all who have all of theirs, and the others."""
        resolved = [result for result in self._results.values() if result is not None]
        if len(resolved) == len(self._results):
            return BatchResult(resolved)
        rest = dict.fromkeys(user_id for (user_id, _), result in self._results.items() if result is None)
        return BatchResult([result for result in resolved if result.user_id not in rest], tuple(rest))

    def fail_unresolved(self, code: str, message: str) -> None:
        """Fails every pair without a result, by its own last cause where it has one."""
        otherwise = EngineError(code, message)
        for user in self._unresolved(self.users):
            for scenario_type in user.scenario_types:
                cause = self._causes.get((user.user_id, scenario_type), otherwise)
                self._fail(user._replace(scenario_types=(scenario_type,)), cause)

    async def evaluate(self, calls: Iterable[Users]) -> None:
        answers = self._engine.answers
        await self._engine.lanes.run([partial(self._try_first, users) for users in calls])
        await side_by_side(step() for step in self._left_open)
        while self._suspects:
            suspects, self._suspects = self._suspects, []
            if self._engine.answers == answers:
                await self._find_somebody_who_gets_through([user for users in suspects for user in users])
            answers = self._engine.answers
            await side_by_side(self._isolate(self._unresolved(users)) for users in suspects)
        if self._too_late:
            raise OutOfTimeError("the time budget ended before somebody was asked often enough")

    async def _try_first(self, users: Users) -> None:
        """A call's first try. What it leaves open waits until all have had theirs: most leave nothing."""
        try:
            answer = await self._call(users)
        except EngineTransientError as error:
            self._left_open.append(partial(self._evaluate, users, partial(self._call_again, error)))
        except EngineRefusedCallError as error:
            self._left_open.append(partial(self._halve, users, error, self._call_with_retries))
        else:
            if unsettled := self._settle(users, answer):
                self._left_open.append(partial(self._ask_all_again, unsettled, answer))

    async def _evaluate(self, users: Users, call: Call) -> None:
        try:
            answer = await call(users)
        except EngineTransientError:
            self._suspects.append(users)
        except EngineRefusedCallError as error:
            await self._halve(users, error, call)
        else:
            await self._take(users, answer)

    async def _halve(self, users: Users, error: EngineRefusedCallError, call: Call) -> None:
        """Finds out whom of them the engine refuses."""
        if len(users) == 1:
            self._fail(users[0], error)
        else:
            await side_by_side(self._evaluate(half, call) for half in _halves(users))

    async def _take(self, users: Users, answer: Answer) -> None:
        """Records what is final; asks again, user by user, about the rest."""
        if unsettled := self._settle(users, answer):
            await self._ask_all_again(unsettled, answer)

    async def _ask_all_again(self, users: Users, answer: Answer) -> None:
        await side_by_side(self._ask_again(user, answer) for user in users)

    def _settle(self, users: Users, answer: Answer) -> list[MentorScenarios]:
        """Records the pairs that are final; answers the users who have others, with those."""
        if answer.is_final and not self._attempts:
            self._results.update(answer.results)
            return []
        unsettled: list[MentorScenarios] = []
        for user in users:
            left: list[str] = []
            for scenario_type in user.scenario_types:
                pair = (user.user_id, scenario_type)
                result = answer.results[pair]
                if result is None or pair in answer.retryable:
                    self._attempts[pair] += 1
                    left.append(scenario_type)
                else:
                    self._results[pair] = result._replace(attempts=self._attempts.get(pair, 0) + 1)
            if left:
                unsettled.append(user._replace(scenario_types=tuple(left)))
        return unsettled

    async def _ask_again(self, user: MentorScenarios, answer: Answer) -> None:
        asked = 1
        unsettled = [user]

        async def once() -> None:
            nonlocal answer, asked, unsettled
            # The call that left her unsettled was the first attempt: the policy counts it, and waits before the next.
            if asked > 1:
                answer = await self._call(unsettled)
                unsettled = self._settle(unsettled, answer)
            asked += 1
            if unsettled:
                raise _UnsettledError("engine_missing_result", "the engine left this pair out")

        try:
            await self._engine.retrying(self._budget)(once)
        except _UnsettledError as error:
            if error.too_late:
                self._too_late = True
                return
            for user in unsettled:
                self._fail(user, error)
                for scenario_type in user.scenario_types:
                    pair = (user.user_id, scenario_type)
                    if (said := answer.results[pair]) is not None:
                        self._results[pair] = said._replace(attempts=self._attempts[pair])
        except EngineTransientError:
            self._suspects.append(unsettled)
        except EngineRefusedCallError as error:
            self._fail(unsettled[0], error)

    async def _isolate(self, users: Users) -> None:
        """Halves a group that keeps failing until one user stands alone."""
        if len(users) > 1:
            # Without retries: a half that fails is halved again, which is a retry as well.
            await side_by_side(self._evaluate(half, self._call) for half in _halves(users))
        elif users:
            await self._give_last_chance(users[0])

    async def _give_last_chance(self, user: MentorScenarios) -> None:
        """A full round of retries of her own; she is blamed only while the engine answers somebody else."""
        try:
            answer = await self._call_while_others_are_answered(user)
        except EngineTransientError as error:
            if error.speaks_of_all_calls:
                raise _unavailable(error) from error
            if error.too_late:
                self._too_late = True
            elif error.code == TOO_BUSY:
                await self._hear_alone(user)
            else:
                self._fail(user, error)
        except EngineRefusedCallError as error:
            self._fail(user, error)
        else:
            await self._take([user], answer)

    async def _call_while_others_are_answered(self, user: MentorScenarios) -> Answer:
        """Calls her with retries; if that fails, it is not because the engine is down.

        Raises:
            EngineUnavailableError: it answers nobody else either.
        """
        answers = self._engine.answers
        try:
            return await self._call_with_retries([user])
        except EngineTransientError as error:
            if error.speaks_of_all_calls or self._engine.answers > answers:
                raise
            if not await self._engine.still_answers_its_witness(self._budget):
                raise _unavailable(error) from error
            if error.too_late:
                raise
        # An outage that lasted for all her tries may have ended just before the witness was asked.
        return await self._call([user])

    async def _hear_alone(self, user: MentorScenarios) -> None:
        """Tries her with no other call of ours in flight: too many calls at a time are no user's fault.

        For as long as there is time: who shares the engine with other workers is only unlucky.
        """

        async def once() -> Answer | None:
            for _ in range(TURNED_AWAY_ALONE):
                try:
                    return await self._call([user], alone=True)
                except EngineTransientError as error:
                    witness = self._engine.still_answers_its_witness
                    if error.speaks_of_all_calls or not await witness(self._budget, alone=True):
                        raise
            return None

        try:
            answer: Answer | None = await self._engine.retrying(self._budget, tireless=True)(once)
        except EngineTransientError as error:
            if error.speaks_of_all_calls:
                raise _unavailable(error) from error
            raise OutOfTimeError("the time budget ended before the engine had time for a user") from error
        except EngineRefusedCallError as error:
            self._fail(user, error)
            return
        if answer is None:
            self._fail(user, self._causes[user.user_id, user.scenario_types[0]])
        else:
            await self._take([user], answer)

    async def _find_somebody_who_gets_through(self, users: Users) -> None:
        """Tries a few users alone: one of them through, and the engine is not down.

        Raises:
            EngineUnavailableError: it answers none of them, nor the one whom it answered last.
        """
        failures: list[EngineTransientError] = []
        # By chance: a batch whose probes all happen to be poison is given back, and has better luck the next time.
        for user in random.sample(users, min(PROBES, len(users))):
            try:
                answer = await self._call([user])
            except EngineTransientError as error:
                failures.append(error)
            except EngineRefusedCallError:
                return
            else:
                await self._take([user], answer)
                return
        if not await self._engine.still_answers_its_witness(self._budget):
            raise _unavailable(failures[-1]) from failures[-1]

    async def _call_with_retries(self, users: Users) -> Answer:
        """Calls, and calls again where the failure may pass."""
        try:
            return await self._call(users)
        except EngineTransientError as error:
            return await self._call_again(error, users)

    async def _call_again(self, failure: EngineTransientError, users: Users) -> Answer:
        """Goes on after a first failure.

        tenacity comes in only here: around every call it would cost more than most calls do.
        """
        failures = [failure]

        async def again() -> Answer:
            if failures:
                raise failures.pop()
            return await self._call(users)

        return await self._engine.retrying(self._budget)(again)

    async def _call(self, users: Users, *, alone: bool = False) -> Answer:
        try:
            answer = await self._engine.evaluate(self._context, users, self._budget, alone=alone)
        except EngineError as error:
            pairs = [(user.user_id, scenario_type) for user in users for scenario_type in user.scenario_types]
            self._attempts.update(pairs)
            self._causes.update(dict.fromkeys(pairs, error))
            raise
        self.dropped += answer.dropped
        return answer

    def _unresolved(self, users: Users) -> list[MentorScenarios]:
        return [
            MentorScenarios(user.user_id, unresolved)
            for user in users
            if (unresolved := tuple(t for t in user.scenario_types if self._results[user.user_id, t] is None))
        ]

    def _fail(self, user: MentorScenarios, error: EngineError) -> None:
        self._record(user, "failed", error.code, error.message)

    def _record(self, user: MentorScenarios, outcome: Outcome, code: str, message: str | None = None) -> None:
        """The same for each of a user's pairs, after the calls that were made about it."""
        for scenario_type in user.scenario_types:
            pair = (user.user_id, scenario_type)
            attempts = self._attempts.get(pair, 0)
            self._results[pair] = EvaluationResult(*pair, outcome, attempts, code, message)


def _cut_into_calls(users: Users, users_per_call: int, types_per_call: int | None) -> Iterator[Users]:
    """Whom each call is to be about, and for what; nobody is twice in a call."""
    most_types = max((len(user.scenario_types) for user in users), default=0)
    step = types_per_call or max(most_types, 1)
    for first in range(0, most_types, step):
        part = users if step >= most_types else _types_of(users, slice(first, first + step))
        for start in range(0, len(part), users_per_call):
            yield part[start : start + users_per_call]


def _types_of(users: Users, some: slice) -> Users:
    return [
        user._replace(scenario_types=scenario_types) for user in users if (scenario_types := user.scenario_types[some])
    ]


def _unavailable(error: EngineTransientError) -> EngineUnavailableError:
    return EngineUnavailableError(
        error.code, f"the engine answers nobody: {error.message}", retry_after=error.retry_after
    )


def _halves(users: Users) -> tuple[Users, Users]:
    middle = len(users) // 2
    return users[:middle], users[middle:]
