"""Debian's cloud kernels, from the mirror that this machine's own apt configuration names.

    find("6.1")  ->  Kernel(release="6.1.0-56-cloud-amd64", image=Path("…/vmlinuz-…"), modules=Path("…/kernel"))

apt is asked with lists and sources of our own, in the cache directory: the machine's are not touched.  A
kernel that is in the cache is not fetched again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

#: What to boot: the series of a kernel's version, and how it is called in results.
SERIES = ("5.10", "6.1", "6.12", "7")
#: Debian's suites that hold them; the security ones lie in an archive of their own.
_SUITES = ("bullseye", "bookworm", "trixie", "trixie-backports", "sid")
_SECURITY_SUITES = ("bullseye-security", "bookworm-security")
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


class NoKernelError(Exception):
    """A kernel cannot be had; the message says why."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel."""

    series: str
    release: str
    image: Path
    modules: Path


def cache_directory() -> Path:
    """Where kernels are kept: PENSTOCK_KERNELS, else a directory of the user's cache."""
    chosen = os.environ.get("PENSTOCK_KERNELS")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else base / "penstock/kernels"


def find(series: str, *, fetch: bool = True) -> Kernel:
    """The newest kernel of a series, out of the cache or fetched into it.

    Raises:
        NoKernelError: it is not in the cache and cannot be fetched.
    """
    place = cache_directory() / series
    if not (place / "complete").exists():
        if not fetch:
            raise NoKernelError(f"Linux {series} is not in {cache_directory()}")
        _fetch(series, place)
    return _unpacked(series, place)


def _unpacked(series: str, place: Path) -> Kernel:
    # From 7.x on the image lies among the modules.
    images = [*place.glob("**/boot/vmlinuz-*"), *place.glob("**/lib/modules/*/vmlinuz")]
    if not images:
        raise NoKernelError(f"the packages of Linux {series} have no kernel in them")
    named = images[0].name.partition("-")[2]
    release = named or images[0].parent.name
    modules = next(iter(place.glob(f"**/lib/modules/{release}/kernel")), None)
    if modules is None:
        raise NoKernelError(f"the packages of Linux {series} have no modules")
    return Kernel(series, release, images[0], modules)


def _fetch(series: str, place: Path) -> None:
    apt = Apt(cache_directory())
    names = apt.packages(series)
    shutil.rmtree(place, ignore_errors=True)
    downloads = place / "packages"
    downloads.mkdir(parents=True)
    apt.download(names, downloads)
    for package in downloads.iterdir():
        _run("dpkg-deb", "-x", str(package), str(place / "root"))
    shutil.rmtree(downloads)
    (place / "complete").touch()


class Apt:
    """apt with lists and sources of its own."""

    def __init__(self, base: Path) -> None:
        self._state = base / "apt"
        self._sources = self._state / "kernels.sources"

    @cached_property
    def _options(self) -> list[str]:
        for part in ("lists/partial", "archives/partial"):
            (self._state / part).mkdir(parents=True, exist_ok=True)
        self._sources.write_text(_sources())
        options = {
            "Dir::Etc::sourcelist": self._sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::lists": self._state / "lists",
            "Dir::Cache": self._state,
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        # Suites come and go; what could be read counts, and whether that is enough is seen below.
        subprocess.run(["apt-get", *given, "update"], capture_output=True, check=False)
        return given

    def packages(self, series: str) -> list[str]:
        """The packages that make up the newest kernel of a series."""
        meta = f"linux-image-cloud-{_run('dpkg', '--print-architecture').strip()}"
        found = [
            (_version(stanza), depends[1])
            for stanza in self._shown(meta)
            if (depends := re.search(r"linux-image-(\d\S*?)(?:[ ,(]|$)", stanza, re.MULTILINE))
            and re.search(rf"^Version: {re.escape(series)}\.", stanza, re.MULTILINE)
        ]
        if not found:
            raise NoKernelError(f"no suite of the Debian mirror has {meta} {series}")
        image = f"linux-image-{max(found)[1]}"
        # From 7.x on the image package holds nothing itself.
        parts = re.findall(r"linux-(?:binary|modules)-\d[^ ,]*", "\n".join(self._shown(image)))
        return sorted({image, *parts})

    def _shown(self, package: str) -> list[str]:
        done = subprocess.run(
            ["apt-cache", *self._options, "show", "-a", package], capture_output=True, text=True, check=False
        )
        return done.stdout.split("\n\n")

    def download(self, packages: list[str], target: Path) -> None:
        """Fetch packages into a directory."""
        _run("apt-get", *self._options, "download", *packages, cwd=target)


def _version(stanza: str) -> list[int]:
    found = re.search(r"^Version: (\S+)", stanza, re.MULTILINE)
    return [int(number) for number in re.findall(r"\d+", found[1])] if found else []


def _sources() -> str:
    """Every suite of interest, at the addresses that this machine fetches Debian from."""
    described = "$(REPO_URI) $(LABEL)"
    said = _run("apt-get", "indextargets", "--format", described, "Created-By: Packages")
    by_label = dict(tuple(reversed(line.split(" ", 1))) for line in said.splitlines())
    if "Debian" not in by_label:
        raise NoKernelError("this machine's apt does not fetch from a Debian mirror")
    stanzas = [_stanza(by_label["Debian"], _SUITES)]
    if "Debian-Security" in by_label:
        stanzas.append(_stanza(by_label["Debian-Security"], _SECURITY_SUITES))
    return "\n".join(stanzas)


def _stanza(address: str, suites: tuple[str, ...]) -> str:
    signed = f"Signed-By: {_KEYS}\n" if Path(_KEYS).exists() else ""
    return f"Types: deb\nURIs: {address}\nSuites: {' '.join(suites)}\nComponents: main\n{signed}"


def _run(*argv: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, check=False)
    except FileNotFoundError as error:
        raise NoKernelError(f"{argv[0]} is not installed") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise NoKernelError(f"{argv[0]} failed: {last}")
    return done.stdout
