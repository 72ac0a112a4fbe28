"""Start the units of packaging/ under systemd, in namespaces of their own, and see what they do: `make units`.

python -m tools.units             as root; the report, and exit code 1 where something is not as it should be
python -m tools.units --quick     the start, privileges, and a daemon that is killed: what a test run has time for

boot.sh      becomes process 1 of a root of its own: this machine's files, and all that is written lies in memory
furnish.sh   installs penstock and its units there, as a package would
checks.py    runs there as a unit, when everything else has started; says what it saw
"""
