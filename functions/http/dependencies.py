"""Dependencies of routes: the services, the token that the document names, one value for each query parameter."""

from collections import Counter
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from functions.runs.services import Services
from shared.auth import Caller
from shared.errors import RequestError

# Parameters that may be repeated: any of the values matches.
LIST_PARAMETERS = {"status", "trigger", "triggered_by", "outcome"}

# For the document only: the middleware checks tokens before a route is looked for and before a body is read.
TOKEN = Depends(
    HTTPBearer(
        scheme_name="token",
        description="An admin token may do everything, an invoke token only `POST /`. Where `SUPABASE_PUBLISHABLE_KEY`"
        " is set, also an access token of Supabase Auth: an `operator` may do everything, a `viewer` only read.",
        auto_error=False,
    )
)


async def _services(request: Request) -> Services:
    services: Services = request.app.state.connect()
    return services


Connected = Annotated[Services, Depends(_services)]


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


Authenticated = Annotated[Caller, Depends(_caller)]
# On an open path the caller may have no token that is known.
Recognized = Annotated[Caller | None, Depends(_caller)]


async def refuse_repeated_parameters(request: Request) -> None:
    """Refuses a query that repeats a parameter of one value: 422 `invalid_field`."""
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if count > 1 and name not in LIST_PARAMETERS:
            raise RequestError(422, "invalid_field", f"{name}: expected one value, found {count}", field=name)
