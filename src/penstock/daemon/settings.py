"""The daemon's settings: /etc/penstock/settings.toml, or another directory's by $PENSTOCK_CONFIG_DIR.

    [policy."edge.policy"]
    interfaces = ["eth0", "wan*"]

    [failure]
    load = "closed"

Every key has a default, and a file that is not there is a file that says
nothing.  A key that is not known is an error that names the nearest one: a
misspelt `force` must not pass for a comment.
"""

from __future__ import annotations

import grp
import pwd
import tomllib
from difflib import get_close_matches
from os import environ
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from penstock.errors import SettingsError
from penstock.model.regular_file import read_regular

FILE = "settings.toml"
_MOST_BYTES = 1 << 20
#: Whoever writes `inf` would not be heard again before a reload.
Seconds = Annotated[float, msgspec.Meta(ge=0.01, le=3600)]
Rate = Annotated[float, msgspec.Meta(ge=0.01, le=1_000_000)]
Count = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
OnLoadError = Literal["open", "closed"]


class PolicySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a policy file goes, and how."""

    #: Names, or patterns with `*`, `?` and `[…]`; without it the interface that the file is named after.
    interfaces: tuple[str, ...] | None = None
    filter: str | None = None
    mode: Literal["auto", "native", "generic", "tcx", "clsact"] = "auto"
    order: str | None = None
    #: Also if it cuts off what this host needs.
    force: bool = False
    #: Take over from an XDP program that is not penstock's.
    replace: bool = False
    on_load_error: OnLoadError | None = None


class Access(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may use the sockets, beside root and the daemon's own user; `readers` is who may ask."""

    users: tuple[str | int, ...] = ()
    groups: tuple[str | int, ...] = ()
    readers: Literal["everybody", "users"] = "everybody"


class Failure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done when something fails; the decisions that nobody can choose are in failures.py."""

    #: A policy cannot be put in place and nothing is there: packets pass, with an alarm, or nothing but lifelines does.
    load: OnLoadError = "open"
    #: What passes `closed` beside the lifelines.
    reachable: tuple[str, ...] = ("tcp port 22",)


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one may cost the daemon who connects to it."""

    connections: Count = 128
    longest_request: Annotated[int, msgspec.Meta(ge=1024, le=16 << 20)] = 1 << 20
    patience_s: Seconds = 10.0
    idle_s: Seconds = 300.0
    reads_per_s: Rate = 100.0


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of them."""

    policy: dict[str, PolicySettings] = {}
    access: Access = Access()
    failure: Failure = Failure()
    limits: Limits = Limits()
    #: How often is looked whether all is as it should be, and whether a file has changed.
    check_s: Seconds = 2.0
    #: How often entries that have expired give their memory back.
    sweep_s: Seconds = 60.0


def config_directory() -> Path:
    """$PENSTOCK_CONFIG_DIR, or /etc/penstock."""
    return Path(environ.get("PENSTOCK_CONFIG_DIR") or "/etc/penstock")


def read_settings(directory: Path) -> Settings:
    """The settings in a directory; the defaults where there are none.

    Raises:
        SettingsError: the file cannot be read, or says what cannot be; it names file, line or key.
    """
    path = directory / FILE
    try:
        content, _ = read_regular(path, _MOST_BYTES)
        if len(content) > _MOST_BYTES:
            raise SettingsError(f"{path} is larger than {_MOST_BYTES >> 20} MiB")
        found = tomllib.loads(content.decode())
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is no TOML: {error}") from error
    return settings_of(found, str(path))


def settings_of(found: dict[str, Any], name: str) -> Settings:
    """Settings from what a file says; `name` is what it is called.  Raises SettingsError."""
    _refuse_unknown(found, name)
    try:
        settings = msgspec.convert(found, Settings)
    except msgspec.ValidationError as error:
        words, _, place = str(error).partition(" - at `$.")
        key = place.rstrip("`") or None
        raise SettingsError(f"{name}: {key}: {words}" if key else f"{name}: {words}", key=key) from error
    accounts(settings.access, name)
    return settings


def accounts(access: Access, name: str = FILE) -> tuple[frozenset[int], frozenset[int]]:
    """The numbers of the users and groups that are named.  Raises SettingsError: there is no such account."""
    users = frozenset(
        _number(one, "access.users", name, lambda word: pwd.getpwnam(word).pw_uid) for one in access.users
    )
    groups = frozenset(
        _number(one, "access.groups", name, lambda word: grp.getgrnam(word).gr_gid) for one in access.groups
    )
    return users, groups


def _number(account: str | int, key: str, name: str, look_up: Any) -> int:
    if isinstance(account, int):
        return account
    try:
        number: int = look_up(account)
    except KeyError:
        raise SettingsError(f"{name}: {key}: there is no account `{account}` on this host", key=key) from None
    return number


def _refuse_unknown(found: dict[str, Any], name: str) -> None:
    """Refuse keys that nobody reads, each with the nearest one that somebody does."""
    tables: list[tuple[str, Any, type[msgspec.Struct]]] = [("", found, Settings)]
    tables += [
        ("access.", found.get("access"), Access),
        ("failure.", found.get("failure"), Failure),
        ("limits.", found.get("limits"), Limits),
    ]
    policies = found.get("policy")
    if isinstance(policies, dict):
        tables += [(f'policy."{key}".', table, PolicySettings) for key, table in policies.items()]
    for prefix, table, kind in tables:
        known = kind.__struct_fields__
        for key in table if isinstance(table, dict) else ():
            if key not in known:
                near = get_close_matches(key, known, 1)
                hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(known)}"
                raise SettingsError(f"{name}: there is no key `{prefix}{key}`", key=prefix + key, hint=hint)
