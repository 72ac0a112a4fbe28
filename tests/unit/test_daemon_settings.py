"""The daemon's settings: what they may say, and how a mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.daemon.settings import Access, Failure, Limits, PolicySettings, Settings, read_settings
from penstock.errors import SettingsError


def settings(directory: Path, text: str) -> Settings:
    (directory / "settings.toml").write_text(text)
    return read_settings(directory)


def test_without_a_file_all_has_its_default(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == read_settings(tmp_path / "nowhere") == Settings()
    assert Settings().failure.load == "open"


def test_every_key_can_be_set(tmp_path: Path) -> None:
    text = """
        check_s = 1
        sweep_s = 30.5
        [policy."edge.policy"]
        interfaces = ["eth0", "wan*"]
        filter = "edge"
        mode = "generic"
        order = "first"
        force = true
        replace = true
        on_load_error = "closed"
        [access]
        users = ["root", 1000]
        groups = ["root"]
        readers = "users"
        [failure]
        load = "closed"
        reachable = ["tcp dst port 2222"]
        [limits]
        connections = 10
        longest_request = 4096
        patience_s = 1
        idle_s = 2
        reads_per_s = 3
    """
    found = settings(tmp_path, text)
    assert found.policy["edge.policy"].interfaces == ("eth0", "wan*")
    assert found.access.users == ("root", 1000)
    unset = [
        f"{type(table).__name__}.{key}"
        for table in (found, found.policy["edge.policy"], found.access, found.failure, found.limits)
        for key in table.__struct_fields__
        if getattr(table, key) == getattr(type(table)(), key)
    ]
    assert unset == [], "a key that this test does not know"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("chek_s = 1", "there is no key `chek_s`", "did you mean `check_s`?"),
        ("[failures]", "there is no key `failures`", "did you mean `failure`?"),
        ("[failure]\nlaod = 'open'", "there is no key `failure.laod`", "did you mean `load`?"),
        (
            '[policy."a.policy"]\ninterface = "eth0"',
            'there is no key `policy."a.policy".interface`',
            "did you mean `interfaces`?",
        ),
        ("[failure]\nload = 'ajar'", "failure.load: Invalid enum value 'ajar'", None),
        ("check_s = 0", "check_s: Expected `float` >= 0.01", None),
        ("check_s = inf", "check_s: Expected `float` <= 3600", None),
        ("check_s = 'often'", "check_s: Expected `float`, got `str`", None),
        ("policy = 3", "policy: Expected `object`, got `int`", None),
        ("[access]\ngroups = ['no-such-group']", "access.groups: there is no account `no-such-group`", None),
        ("check_s = ", "is no TOML", None),
        ("\x00", "is no TOML", None),
        ("x = " + "[" * 100_000, "is no TOML", None),
    ],
)
def test_a_mistake_is_told_with_file_and_key(
    tmp_path: Path, text: str, message: str, hint: str | None
) -> None:
    with pytest.raises(SettingsError) as error:
        settings(tmp_path, text)
    assert "settings.toml" in error.value.message
    assert message in error.value.message
    assert error.value.hint == hint


def test_the_page_has_every_key_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs/daemon.md").read_text()
    prefixes = {
        "": Settings,
        'policy."FILE".': PolicySettings,
        "access.": Access,
        "failure.": Failure,
        "limits.": Limits,
    }
    tables = {"policy", "access", "failure", "limits"}
    for prefix, kind in prefixes.items():
        for key in kind.__struct_fields__:
            if prefix or key not in tables:
                assert f"| `{prefix}{key}` |" in page
                default = getattr(kind(), key)
                if isinstance(default, float | int) and not isinstance(default, bool):
                    assert f"| `{prefix}{key}` | `{default}` |" in page


def test_a_file_that_is_no_text_or_no_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is no TOML"):
        read_settings(tmp_path)
    (tmp_path / "settings.toml").unlink()
    (tmp_path / "settings.toml").mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings(tmp_path)
