"""Boot Debian's kernels under qemu and see what penstock does on them: `make kernels`.

python -m tools.kernels                 every kernel of `packages.SERIES`
python -m tools.kernels 6.1 7           some of them

packages   kernels out of the machine's own Debian mirror, kept in a cache
modules    which of a kernel's modules are loaded, in which order
cpio       an archive as the kernel unpacks it (initramfs)
image      what is in it: Python, penstock, the work, and guest.py as /init
work       what the guest is to do, compiled on the host
guest      runs there: probe, load, test runs, attach; writes what it saw to a serial port
machine    qemu, with a time limit
verdict    what was seen against what is expected of that kernel
"""
