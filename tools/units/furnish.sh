#!/bin/sh
# What a distribution's package would leave: penstock in /usr/bin, units, users, directories; and two policies.
set -eu
cd /opt/repository
make -s install-units DESTDIR=
binary=$(ls /opt/python/bin/python3.[0-9]* | grep -v config | head -1)
cat >/usr/bin/penstock <<END
#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/repository/src:/opt/site PYTHONDONTWRITEBYTECODE=1
exec $binary -m penstock "\$@"
END
chmod 755 /usr/bin/penstock
printf 'penstock-units\n' >/etc/hostname
rm -f /etc/fstab /etc/machine-id
printf '00000000000000000000000000000001\n' >/etc/machine-id
rm -rf /etc/penstock /var/lib/penstock && mkdir -p /etc/penstock
units=/etc/systemd/system
# An interface, as a driver would bring it, and one that comes later.
cat >$units/wires.service <<END
[Unit]
DefaultDependencies=no
Before=penstock.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=$(command -v ip) link set lo up
ExecStart=$(command -v ip) netns add peer
ExecStart=$(command -v ip) link add v0 type veth peer name v1 netns peer
ExecStart=$(command -v ip) link set v0 up
ExecStart=$(command -v ip) -n peer link set v1 up
ExecStart=$(command -v ip) -n peer address add 10.9.0.1/24 dev v1
[Install]
WantedBy=sysinit.target
END
# Waits for network-pre.target, as network managers do.
cat >$units/manager.service <<END
[Unit]
DefaultDependencies=no
After=network-pre.target
Wants=network-pre.target
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=$(command -v ip) address add 10.9.0.2/24 dev v0
[Install]
WantedBy=multi-user.target
END
cat >$units/checks.service <<END
[Unit]
After=multi-user.target
[Service]
Type=oneshot
Environment=LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/repository/src:/opt/repository:/opt/site PYTHONDONTWRITEBYTECODE=1
ExecStart=$binary -m tools.units.checks /opt/report $*
ExecStopPost=/bin/sh -c 'journalctl -b --no-pager -o short-monotonic >/opt/report/journal 2>&1; systemctl exit 0'
TimeoutStartSec=300
[Install]
WantedBy=multi-user.target
END
for unused in getty.target systemd-logind.service e2scrub_reap.service dbus.service dbus.socket apparmor.service systemd-udevd.service cron.service; do
    ln -sf /dev/null $units/$unused
done
ln -s /lib/systemd/system/multi-user.target $units/default.target
cat >/etc/penstock/settings.toml <<END
check_s = 0.5
[access]
groups = ["operators"]
END
cat >/etc/penstock/v0.policy <<END
set banned : host size 1024 timeout 1h
set listed : net size 1024
filter edge at xdp {
    default pass
    dns: drop if udp dst port 53
    drop if src in @banned
    drop if src in @listed
    pings: drop if icmp and over 10/s per src
}
filter inward at tc ingress { drop if tcp dst port 23 }
END
groupadd operators
useradd --no-create-home --gid nogroup --groups operators operator
useradd --no-create-home --gid nogroup stranger
systemctl enable wires.service manager.service checks.service penstock.service
