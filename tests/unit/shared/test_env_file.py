"""The file of settings is read as it stands, and its tokens change without anything else changing."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.deployment.env_file import UnusableFileError, add_new_tokens, keep_newest_tokens, read_env_file

FILE = """\
# tokens
SCHEDULER_INVOKE_TOKENS=outdated
EVALUATION_SCHEDULE=0 2 * * *
SCENARIO_TYPES=[{"type": "a#b"}]
SCHEDULER_INVOKE_TOKENS=invoke-1
SCHEDULER_ADMIN_TOKENS="admin-1, admin-0"

EVALUATION_SCHEDULE=
ENGINE_TYPES_PER_CALL=
"""


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_text(FILE)
    return path


def test_a_value_is_what_stands_there_without_its_quotation_marks(env_file: Path) -> None:
    assert read_env_file(env_file) == {
        "SCHEDULER_INVOKE_TOKENS": "invoke-1",
        "EVALUATION_SCHEDULE": "0 2 * * *",
        "SCENARIO_TYPES": '[{"type": "a#b"}]',
        "SCHEDULER_ADMIN_TOKENS": "admin-1, admin-0",
        "ENGINE_TYPES_PER_CALL": "",
    }


def test_new_tokens_come_first_and_the_old_ones_stay(env_file: Path) -> None:
    add_new_tokens(env_file)
    settings = read_env_file(env_file)
    new, *old = settings["SCHEDULER_ADMIN_TOKENS"].split(",")
    assert (len(new), old) == (43, ["admin-1", "admin-0"])
    new_invoke, old_invoke = settings["SCHEDULER_INVOKE_TOKENS"].split(",")
    assert (new_invoke != new, old_invoke) == (True, "invoke-1")


def test_only_the_newest_tokens_are_kept_and_all_else_stays_as_it_was(env_file: Path) -> None:
    env_file.chmod(0o644)
    keep_newest_tokens(env_file)
    changed = FILE.replace("SCHEDULER_INVOKE_TOKENS=outdated\n", "").replace('"admin-1, admin-0"', "admin-1")
    assert env_file.read_text() == changed
    assert env_file.stat().st_mode & 0o777 == 0o600
    assert list(env_file.parent.iterdir()) == [env_file]


def test_a_link_to_the_file_stays_a_link(env_file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(env_file)
    add_new_tokens(link)
    assert link.is_symlink()
    assert "," in read_env_file(env_file)["SCHEDULER_INVOKE_TOKENS"]


def test_a_line_that_is_no_setting_is_named_by_its_number_alone(env_file: Path) -> None:
    env_file.write_text("A=1\nnot a setting but a secret\n")
    with pytest.raises(UnusableFileError, match=r"line 2: expected NAME=value, a comment or nothing$"):
        read_env_file(env_file)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ".env"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnusableFileError, match=r"\.env: cannot be read"):
        read_env_file(path)


def test_a_file_without_tokens_gets_none(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("SCHEDULER_INVOKE_TOKENS=a\n")
    with pytest.raises(UnusableFileError, match="expected SCHEDULER_ADMIN_TOKENS"):
        add_new_tokens(path)
    assert path.read_text() == "SCHEDULER_INVOKE_TOKENS=a\n"
