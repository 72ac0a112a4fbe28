"""`python -m penstock` is the command `penstock`; Ctrl-C while it is being imported ends it as later."""

from __future__ import annotations


def run() -> None:
    """Run the command that was given to this process, and end with its code."""
    try:
        from penstock.cli.start import main

        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    run()
