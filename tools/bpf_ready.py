"""Print 1 if this process can load BPF programs, else nothing: `make test` is strict then."""

from penstock.kernel.features import features

found = features()
print("1" if found.bpf_permitted and not found.missing else "")
