#!/bin/sh
# Process 1 of new namespaces becomes systemd, in a root of its own: this machine's files, and all that is written in memory.
#
#   boot.sh PLACE PYTHON SITE REPOSITORY REPORT [--quick]      PLACE, REPORT: empty directories
#
# Nothing of the machine is changed: /proc/sys and /sys can only be read, but for a BPF file system and a control group of
# the guest's own; its network is empty; and it cannot set clocks, load modules or start the machine anew.
set -eu
place=$1 python=$2 site=$3 repository=$4 report=$5
shift 5
PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" "$place/root"
cd "$place/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys && mount -o remount,bind,ro proc/sys
[ ! -e proc/sysrq-trigger ] || mount --bind /dev/null proc/sysrq-trigger
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf -o mode=700 bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do touch "dev/$node" && mount --bind "/dev/$node" "dev/$node"; done
mkdir dev/pts dev/shm && ln -s /proc/self/fd dev/fd && ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout && ln -s /proc/self/fd/2 dev/stderr
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts && ln -s pts/ptmx dev/ptmx
# What this machine would start and keep is not there.
for directory in run tmp opt mnt dev/shm etc/systemd/system var/log var/lib/systemd; do
    mkdir -p "$directory" && mount -t tmpfs -o mode=755 tmpfs "$directory"
done
chmod 1777 tmp dev/shm
mkdir opt/python opt/site opt/repository opt/report mnt/old
mount --bind "$python" opt/python
mount --bind "$site" opt/site
mount --bind "$repository" opt/repository
mount --bind "$report" opt/report
pivot_root . mnt/old
cd /
umount -l /mnt/old
sh /opt/repository/tools/units/furnish.sh "$@" >/opt/report/furnish 2>&1
export container=penstock TERM=dumb
exec setpriv --bounding-set=-sys_time,-sys_boot,-sys_module,-sys_rawio,-wake_alarm,-mac_admin,-mac_override \
    /lib/systemd/systemd --system --show-status=no --log-target=journal </dev/null >/opt/report/console 2>&1
