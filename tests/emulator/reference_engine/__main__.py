"""`python -m tests.emulator.reference_engine --host H --port P`: serve the reference engine until a signal."""

from __future__ import annotations

import argparse
import os

import uvicorn

from .app import create_app, data_api_client

REQUIRED = ("SUPABASE_URL", "SUPABASE_SECRET_KEY", "SCENARIO_ENGINE_TOKEN")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.emulator.reference_engine", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()

    missing = [name for name in REQUIRED if not os.environ.get(name)]
    if missing:
        parser.error(f"missing in the environment: {', '.join(missing)}")

    database = data_api_client(os.environ["SUPABASE_URL"], os.environ["SUPABASE_SECRET_KEY"])
    app = create_app(token=os.environ["SCENARIO_ENGINE_TOKEN"], database=database)
    where = {"host": arguments.host, "port": arguments.port}
    uvicorn.run(app, **where, access_log=False, log_level="warning", timeout_graceful_shutdown=5)


if __name__ == "__main__":
    main()
