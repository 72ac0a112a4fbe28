"""Text from outside, shown without harm: control characters as escapes.

printable("eth0\\x1b[2J")   ->  "eth0\\\\x1b[2J"
"""

from __future__ import annotations

# Cc and Cf: controls, and the invisible marks that reorder what is read; Zl and Zp end a line on some terminals.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def printable(text: str) -> str:
    """The text with control characters (line feed and tab apart) shown as escapes."""
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    import unicodedata

    if char in "\n\t" or unicodedata.category(char) not in _HIDDEN:
        return char
    return char.encode("unicode_escape").decode("ascii")
