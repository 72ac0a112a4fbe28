"""Ctrl-C, SIGTERM and the end of the terminal, for commands that must put back what they have changed.

    interruption = Interruption()
    begin()                             # an interruption waits
    try:
        interruption.let_through()      # and comes now, as KeyboardInterrupt
        …
    finally:
        interruption.hold()
        put_back()                      # not interrupted either

Only the first one comes through: a second Ctrl-C would stop what the first one started.
"""

from __future__ import annotations

import signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """The handler of these signals from now on; it holds them back until told otherwise."""

    def __init__(self) -> None:
        self._is_held, self._has_come = True, False
        for number in _SIGNALS:
            signal.signal(number, self._arrive)

    def let_through(self) -> None:
        """Raise KeyboardInterrupt for the one that came meanwhile, or whenever one comes."""
        if self._has_come:
            raise KeyboardInterrupt
        self._is_held = False

    def hold(self) -> None:
        """Let them wait."""
        self._is_held = True

    def _arrive(self, _number: int, _frame: object) -> None:
        self._has_come = True
        if not self._is_held:
            self._is_held = True
            raise KeyboardInterrupt
