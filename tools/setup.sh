#!/usr/bin/env bash
# Install what penstock needs and leave .venv/bin/penstock in working order.
# Only what is missing is installed; run again at will.
#
#   tools/setup.sh          what penstock needs
#   tools/setup.sh peers    programs that the tests compare with, where the distribution has them
#   tools/setup.sh kernels  qemu, to boot other kernels
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"  # ldconfig and ip, which a user's PATH may lack
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || fail "penstock runs on Linux only; this is $(uname -s)"

# ── what is missing ──────────────────────────────────────────────────────────

has_clang() { command -v clang >/dev/null || compgen -G '/usr/bin/clang-[1-9][0-9]' >/dev/null || compgen -G '/usr/lib/llvm-*/bin/clang' >/dev/null; }
has_library() { ldconfig -p | grep -q "^[[:space:]]*$1\."; }
has_ip() { command -v ip >/dev/null; }
has_headers() { [ -e /usr/include/linux/bpf.h ]; }
has_bpf_helpers() { [ -e /usr/include/bpf/bpf_helpers.h ]; }  # for the tests alone
has_names() { [ -e /etc/services ] && [ -e /etc/protocols ]; }  # `port domain`, `proto \tcp`

usable_python() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}
find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && usable_python "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}
has_venv() { "$1" -c 'import venv, ensurepip' 2>/dev/null; }

libbpf_package() { if apt-cache show libbpf1 >/dev/null 2>&1; then echo libbpf1; else echo libbpf0; fi; }
libpcap_package() { if apt-cache show libpcap0.8t64 >/dev/null 2>&1; then echo libpcap0.8t64; else echo libpcap0.8; fi; }

missing=()
note() { missing+=("$1"); }
has_clang || note clang
has_headers || note linux-libc-dev
has_bpf_helpers || note libbpf-dev
has_library libbpf.so || note libbpf
has_library libpcap.so || note libpcap
has_ip || note iproute2
has_names || note netbase
command -v python3 >/dev/null || find_python >/dev/null || note python3
if python=$(find_python); then has_venv "$python" || note "$(basename "$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')")-venv"; fi

# ── install it ───────────────────────────────────────────────────────────────

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else fail "not root and no sudo; run as root:  $*"
    fi
}
quietly() {  # what the command says is shown only if it fails
    local said
    said=$("$@" 2>&1) || { printf '%s\n' "$said" >&2; fail "this failed:  $*"; }
}

if [ "${1:-}" = peers ]; then
    missing=()
    for peer in tcpdump tshark bpftool; do PATH="$PATH:/usr/sbin" command -v "$peer" >/dev/null || missing+=("$peer"); done
    [ ${#missing[@]} -gt 0 ] || exit 0
    command -v apt-get >/dev/null || { say "tests against ${missing[*]} will be skipped"; exit 0; }
    say "installing ${missing[*]}, which tests compare with"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null 2>&1 || true
    for peer in "${missing[@]}"; do
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$peer" >/dev/null 2>&1 ||
            say "$peer cannot be installed: tests against it will be skipped"
    done
    exit 0
fi

if [ "${1:-}" = kernels ]; then
    command -v qemu-system-x86_64 >/dev/null && exit 0
    command -v apt-get >/dev/null || { say "qemu-system-x86_64 is missing: no kernel will be booted"; exit 0; }
    say "installing qemu-system-x86, which boots other kernels"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null 2>&1 || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86 >/dev/null 2>&1 ||
        say "qemu-system-x86 cannot be installed: no kernel will be booted"
    exit 0
fi

if [ ${#missing[@]} -gt 0 ]; then
    if command -v apt-get >/dev/null; then
        say "missing: ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        as_root apt-get update -qq || say "apt-get update failed; trying with the package lists that are here"
        packages=()
        for name in "${missing[@]}"; do
            case $name in
                libbpf) packages+=("$(libbpf_package)") ;;
                libpcap) packages+=("$(libpcap_package)") ;;
                python3) packages+=(python3 python3-venv) ;;
                *) packages+=("$name") ;;
            esac
        done
        quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
    else
        fail "this is not Debian or Ubuntu; install these with your package manager, then run this again: ${missing[*]}
       Fedora:  dnf install clang kernel-headers libbpf libbpf-devel libpcap iproute python3
       Arch:    pacman -S clang linux-api-headers libbpf libpcap iproute2 python
       Alpine:  apk add clang linux-headers libbpf libbpf-dev libpcap iproute2 python3"
    fi
fi

python=$(find_python) || fail "Python 3.11 or newer is needed; python3 here is $(python3 -V 2>&1 || echo missing).
       Debian 12, Ubuntu 24.04 and newer have one; Ubuntu 22.04 has 3.10 as python3, and a newer one as
       'apt-get install python3.11 python3.11-venv' (universe).  Or say which: PYTHON=/path/to/python3.12 make setup"

# ── the virtual environment ──────────────────────────────────────────────────

if ! { [ -x .venv/bin/python ] && usable_python .venv/bin/python; }; then
    say "creating .venv with $("$python" -V)"
    rm -rf .venv
    "$python" -m venv .venv || fail "'$python -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv"
fi
say "installing penstock and its Python packages into .venv"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --root-user-action=ignore -e '.[dev]'
.venv/bin/penstock version >/dev/null || fail ".venv/bin/penstock does not start"
say "ready: .venv/bin/penstock"
