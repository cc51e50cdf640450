"""The file of settings is read as python-dotenv reads it, and its tokens change without anything else changing."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.deployment.settings import change_tokens, read_env_file
from shared.errors import ConfigError

FILE = """\
# tokens
SCHEDULER_INVOKE_TOKENS=outdated
SCENARIO_TYPES=[{"type": "a#b"}]  # which there are
SCHEDULER_INVOKE_TOKENS=invoke-1  # the database's

export SCHEDULER_ADMIN_TOKENS="admin-1, admin-0"
SUPABASE_SECRET_KEY='$HOME ${HOME} # "x"'
ENGINE_TYPES_PER_CALL=
"""
SETTINGS = {
    "SCHEDULER_INVOKE_TOKENS": "invoke-1",
    "SCENARIO_TYPES": '[{"type": "a#b"}]',
    "SCHEDULER_ADMIN_TOKENS": "admin-1, admin-0",
    "SUPABASE_SECRET_KEY": '$HOME ${HOME} # "x"',
    "ENGINE_TYPES_PER_CALL": "",
}


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize("before", ["", "\ufeff"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_file_is_read_whatever_wrote_it(env_file: Path, before: str, ending: str) -> None:
    env_file.write_bytes((before + FILE.replace("\n", ending)).encode())
    assert read_env_file(env_file) == SETTINGS


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_tokens_rotate_and_all_else_stays(env_file: Path, tmp_path: Path, ending: str) -> None:
    env_file.write_bytes(FILE.replace("\n", ending).encode())
    env_file.chmod(0o644)
    link = tmp_path / "link"
    link.symlink_to(env_file)
    change_tokens(link, add=True)
    assert link.is_symlink()
    settings = read_env_file(env_file)
    new, *old = settings["SCHEDULER_ADMIN_TOKENS"].split(",")
    new_invoke, *old_invoke = settings["SCHEDULER_INVOKE_TOKENS"].split(",")
    assert (len(new), len(new_invoke), new != new_invoke) == (43, 43, True)
    assert (old, old_invoke) == (["admin-1", "admin-0"], ["invoke-1"])
    change_tokens(env_file, add=False)
    changed = FILE.replace("=outdated", f"={new_invoke}").replace("=invoke-1", f"={new_invoke}")
    changed = changed.replace("admin-1, admin-0", new).replace("\n", ending)
    assert env_file.read_bytes().decode() == changed
    assert env_file.stat().st_mode & 0o777 == 0o600
    assert set(tmp_path.iterdir()) == {env_file, link}


def test_named_admin_tokens_outlive_a_rotation(env_file: Path) -> None:
    """`admin` is the name of those without one."""
    env_file.write_text("SCHEDULER_INVOKE_TOKENS=a:1\nSCHEDULER_ADMIN_TOKENS=anna:1,admin:2,berit:3\n")
    change_tokens(env_file, add=True)
    new, *others = read_env_file(env_file)["SCHEDULER_ADMIN_TOKENS"].split(",")
    assert (":" in new, others) == (False, ["2", "anna:1", "berit:3"])
    change_tokens(env_file, add=False)
    settings = read_env_file(env_file)
    assert settings["SCHEDULER_ADMIN_TOKENS"] == f"{new},anna:1,berit:3"
    assert (len(settings["SCHEDULER_INVOKE_TOKENS"]), ":" in settings["SCHEDULER_INVOKE_TOKENS"]) == (43, False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        *(
            (f"A=1\n\n  \n{line}\n".encode(), r"line 4: expected NAME=value, a comment or nothing$")
            for line in ("not a setting but a secret", "NAME", 'NAME="open', "NAME='a' b")
        ),
        (b"\xff\xfe", r"\.env: cannot be read"),
        (None, r"\.env: cannot be read"),
    ],
)
def test_an_unusable_file_is_refused_and_left_as_it_was(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / ".env"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        change_tokens(path, add=True)
    assert content is None or path.read_bytes() == content
