"""The options of the command line, and what of them can be refused before anything is started."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx

from shared.config import ScenarioEvaluationConfig
from shared.engine_protocol import EvaluationContext, protocol_of
from shared.errors import ConfigError
from shared.evaluations import MentorScenarios

from .errors import EmulatorError

# For the engine's answer: one that takes longer is there, and a run waits for it.
ANSWER_SECONDS = 1.0
# What an engine of the user's own gets where no token is named; it may not look at it.
NO_TOKEN = "no-token-was-named"
OPTIONS = {
    "SCENARIO_ENGINE_URL": "--engine-url",
    "SCENARIO_ENGINE_TOKEN": "--engine-token",
    "EVALUATION_SCHEDULE": "--schedule",
}
# In place of what is known only once the stack is made, so that all other settings can be checked.
NOT_YET_MADE = {
    "SUPABASE_URL": "http://127.0.0.1",
    "SUPABASE_SECRET_KEY": "not-yet-made",
    "SCENARIO_ENGINE_URL": "http://127.0.0.1",
    "SCENARIO_ENGINE_TOKEN": "not-yet-made",
    "SCHEDULER_INVOKE_TOKENS": "i" * 32,
    "SCHEDULER_ADMIN_TOKENS": "a" * 32,
}


@dataclass(frozen=True)
class StackOptions:
    """Options of the command line; see its help. `mentors`, `schedule`: None, as in a database that was kept."""

    mentors: int | None = None
    engine_url: str | None = None
    engine_token: str | None = None
    schedule: str | None = None
    function_env: Mapping[str, str] = field(default_factory=dict)
    tick: bool = True
    due_slot: bool = True
    data_dir: Path | None = None
    sign_in: bool = True

    @property
    def settings(self) -> dict[str, str]:
        """Returns what is set for the function; `function_env` goes over the other options."""
        token = NO_TOKEN if self.engine_url is not None and self.engine_token is None else self.engine_token
        named = zip(OPTIONS, (self.engine_url, token, self.schedule), strict=True)
        return {name: value for name, value in named if value is not None} | dict(self.function_env)

    async def check(self) -> None:
        """Checks what the function would refuse, and whether the engine would refuse the function.

        Raises:
            EmulatorError: names the options at fault.
        """
        if self.engine_token is not None and self.engine_url is None:
            raise EmulatorError("--engine-token: expected with --engine-url; the stack's engine has a token of its own")
        try:
            config = ScenarioEvaluationConfig.from_environment(NOT_YET_MADE | self.settings)
        except ConfigError as error:
            raise EmulatorError("; ".join(map(self._by_option, error.problems))) from error
        if self.engine_url is not None:
            await _check_engine(config)

    def _by_option(self, problem: str) -> str:
        """Returns the problem of a setting with the option that sets it."""
        name = re.split(r"\W", problem, maxsplit=1)[0]
        option = None if name in self.function_env else OPTIONS.get(name)
        return f"--function-env {problem}" if option is None else option + problem.removeprefix(name)


async def _check_engine(config: ScenarioEvaluationConfig) -> None:
    """Calls the engine once as the function will, about a user that is unknown to it, and as a dry run."""
    protocol, url = protocol_of(config), config.scenario_engine_url
    context = EvaluationContext(str(uuid4()), "2000-01-01T00:00:00+00:00", "emulator", dry_run=True)
    unknown_user = MentorScenarios(str(uuid4()), (config.scenario_types[0].type,))
    # an engine without dry runs may act on any call that it can read
    body, headers = protocol.request(context, [unknown_user]) if protocol.dry_run else (b"{}", {})
    token = config.scenario_engine_token.get_secret_value()
    headers |= {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        # not by the function's own client, whose threads are in the way of a process that ends at once
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as client:
            status = (await client.post(url + protocol.path, content=body, headers=headers)).status_code
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        found = str(error) or type(error).__name__
        raise EmulatorError(f"--engine-url {url}: expected an engine, found none ({found}); start it first") from error
    except httpx.TransportError:
        return  # it is there, and a run tells what is wrong with it
    if status in (401, 403):
        raise EmulatorError(f"--engine-token: the engine at {url} refuses it ({status}): name the one that it expects")
    # with the protocol single a 404 may be about the user
    if status in range(300, 400) or (status == httpx.codes.NOT_FOUND and not protocol.is_single):
        raise EmulatorError(f"--engine-url {url}: expected an engine, found {status} at {protocol.path}")
