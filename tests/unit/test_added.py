"""Reading one rule that is added to a running policy."""

from __future__ import annotations

import pytest

from penstock.compiler.lang.render import render
from penstock.errors import PolicyError
from penstock.pipeline.added import read_added


def test_a_fault_is_shown_beneath_what_was_typed() -> None:
    with pytest.raises(PolicyError) as raised:
        read_added("drp if arp", "", "guard")
    (fault,) = raised.value.diagnostics
    assert render(fault).splitlines()[1:3] == ["  1 | drp if arp", "    | ^^^"]
