"""Write the rule sets beside this file: the shapes that well-known tools give iptables, with made-up content.

    python -m bench.data.remake

Names of chains and the way they call each other are those of ufw, fail2ban and
Docker, as `iptables-save` shows them; addresses are of the documentation,
benchmarking and private ranges.  The same output every time.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
_REJECT = "-j REJECT --reject-with icmp-port-unreachable"
_SERVICES = (22, 25, 53, 80, 110, 143, 443, 465, 587, 993, 995, 3306, 5432, 6379, 8080, 8443, 9090, 9100)


def main() -> None:
    """Write all of them."""
    for name, make in (("ufw", _ufw), ("fail2ban", _fail2ban), ("docker", _docker), ("hosts", _hosts)):
        lines = make(Random(name))
        (HERE / f"{name}.rules").write_text("\n".join(["*filter", *lines, "COMMIT", ""]))


def _declared(policies: dict[str, str], own: Iterator[str]) -> Iterator[str]:
    yield from (f":{name} {policy} [0:0]" for name, policy in policies.items())
    yield from (f":{name} - [0:0]" for name in own)


def _ufw(random: Random) -> Iterator[str]:
    """A server with forty rules of its user's."""
    stages = ("before-logging", "before", "after", "after-logging", "reject", "track")
    own = [f"ufw-{stage}-input" for stage in stages]
    extra = ["ufw-logging-deny", "ufw-not-local", "ufw-skip-to-policy-input", "ufw-user-input", "ufw-user-limit",
             "ufw-user-limit-accept"]  # fmt: skip
    yield from _declared({"INPUT": "DROP", "FORWARD": "DROP", "OUTPUT": "ACCEPT"}, iter([*own, *extra]))
    yield from (f"-A INPUT -j {name}" for name in own)
    yield "-A ufw-after-input -p udp -m udp --dport 137 -j ufw-skip-to-policy-input"
    yield "-A ufw-after-input -p udp -m udp --dport 138 -j ufw-skip-to-policy-input"
    yield "-A ufw-after-input -p tcp -m tcp --dport 139 -j ufw-skip-to-policy-input"
    yield "-A ufw-after-input -p tcp -m tcp --dport 445 -j ufw-skip-to-policy-input"
    yield "-A ufw-after-input -p udp -m udp --dport 67 -j ufw-skip-to-policy-input"
    yield "-A ufw-after-input -m addrtype --dst-type BROADCAST -j ufw-skip-to-policy-input"
    yield '-A ufw-after-logging-input -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "'
    yield "-A ufw-before-input -i lo -j ACCEPT"
    yield "-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    yield "-A ufw-before-input -m conntrack --ctstate INVALID -j ufw-logging-deny"
    yield "-A ufw-before-input -m conntrack --ctstate INVALID -j DROP"
    yield from (
        f"-A ufw-before-input -p icmp -m icmp --icmp-type {kind} -j ACCEPT" for kind in (3, 11, 12, 8)
    )
    yield "-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT"
    yield "-A ufw-before-input -j ufw-not-local"
    yield "-A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT"
    yield "-A ufw-before-input -d 239.255.255.250/32 -p udp -m udp --dport 1900 -j ACCEPT"
    yield "-A ufw-before-input -j ufw-user-input"
    yield '-A ufw-logging-deny -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "'
    yield "-A ufw-not-local -d 192.0.2.10/32 -j RETURN"
    yield "-A ufw-not-local -d 224.0.0.0/4 -j RETURN"
    yield "-A ufw-not-local -d 192.0.2.255/32 -j RETURN"
    yield "-A ufw-not-local -j DROP"
    yield "-A ufw-skip-to-policy-input -j DROP"
    yield from _ufw_user(random)
    yield f"-A ufw-user-limit {_REJECT}"
    yield "-A ufw-user-limit-accept -j ACCEPT"


def _ufw_user(random: Random) -> Iterator[str]:
    yield "-A ufw-user-input -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -m recent --set --name DEFAULT"
    yield "-A ufw-user-input -p tcp -m multiport --dports 80,443 -j ACCEPT"
    yield "-A ufw-user-input -p udp -m udp --dport 443 -j ACCEPT"
    yield "-A ufw-user-input -p tcp -m multiport --dports 60000:61000 -j ACCEPT"
    for _ in range(36):
        source = (
            f"-s {_network(_private(random), random.choice((32, 32, 24, 16)))} "
            if random.random() < 0.8
            else ""
        )
        protocol = random.choice(("tcp", "tcp", "udp"))
        target = random.choice(("-j ACCEPT", "-j ACCEPT", "-j DROP", _REJECT))
        yield (
            f"-A ufw-user-input {source}-p {protocol} -m {protocol} --dport {random.choice(_SERVICES)} {target}"
        )


def _fail2ban(random: Random) -> Iterator[str]:
    """A mail server under attack: a thousand addresses banned from ssh, some hundred from each other service."""
    jails = {"sshd": ("22", 1000), "postfix": ("25,465,587", 300), "dovecot": ("110,143,993,995", 200),
             "nginx-http-auth": ("80,443", 150), "recidive": ("", 100)}  # fmt: skip
    yield from _declared(
        {"INPUT": "ACCEPT", "FORWARD": "ACCEPT", "OUTPUT": "ACCEPT"}, iter(f"f2b-{jail}" for jail in jails)
    )
    for jail, (ports, _) in reversed(jails.items()):
        match = f"-m multiport --dports {ports} " if ports else ""
        yield f"-A INPUT -p tcp {match}-j f2b-{jail}"
    for jail, (_, banned) in jails.items():
        for address in sorted({_attacker(random) for _ in range(banned)}):
            yield f"-A f2b-{jail} -s {address}/32 {_REJECT}"
        yield f"-A f2b-{jail} -j RETURN"


def _docker(random: Random) -> Iterator[str]:
    """A host of containers: sixty published ports on four bridges, and an allow-list in front of them."""
    bridges = {f"br-{random.getrandbits(48):012x}": f"172.{18 + n}.0" for n in range(4)}
    own = ["DOCKER", "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-USER"]
    yield from _declared({"INPUT": "ACCEPT", "FORWARD": "DROP", "OUTPUT": "ACCEPT"}, iter(own))
    yield "-A FORWARD -j DOCKER-USER"
    yield "-A FORWARD -j DOCKER-ISOLATION-STAGE-1"
    for bridge in bridges:
        yield f"-A FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        yield f"-A FORWARD -o {bridge} -j DOCKER"
        yield f"-A FORWARD -i {bridge} ! -o {bridge} -j ACCEPT"
        yield f"-A FORWARD -i {bridge} -o {bridge} -j ACCEPT"
    for _ in range(60):
        bridge, prefix = random.choice(list(bridges.items()))
        address, port = f"{prefix}.{random.randrange(2, 60)}", random.choice(_SERVICES)
        yield f"-A DOCKER -d {address}/32 ! -i {bridge} -o {bridge} -p tcp -m tcp --dport {port} -j ACCEPT"
    for bridge in bridges:
        yield f"-A DOCKER-ISOLATION-STAGE-1 -i {bridge} ! -o {bridge} -j DOCKER-ISOLATION-STAGE-2"
        yield f"-A DOCKER-ISOLATION-STAGE-2 -o {bridge} -j DROP"
    yield "-A DOCKER-ISOLATION-STAGE-1 -j RETURN"
    yield "-A DOCKER-ISOLATION-STAGE-2 -j RETURN"
    yield from _docker_user(random)


def _docker_user(random: Random) -> Iterator[str]:
    yield "-A DOCKER-USER -i eth0 -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    yield "-A DOCKER-USER -i eth0 -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m multiport --dports 23,445 -j DROP"
    for _ in range(60):
        yield f"-A DOCKER-USER -s {_network(_private(random), random.choice((32, 28, 24)))} -i eth0 -j RETURN"
    for _ in range(30):
        yield f"-A DOCKER-USER -s {_network(_attacker(random), random.choice((32, 32, 24)))} -i eth0 -j DROP"
    yield "-A DOCKER-USER ! -s 10.0.0.0/8 -i eth0 -p tcp -m multiport --dports 3306,5432,6379 -j DROP"
    yield "-A DOCKER-USER -j RETURN"


def _hosts(random: Random) -> Iterator[str]:
    """A router that a program writes the rules of: a chain for each of two hundred hosts, ten rules in each."""
    hosts = [f"10.20.{n // 100}.{10 + n % 100}" for n in range(200)]
    yield from _declared(
        {"INPUT": "DROP", "FORWARD": "DROP", "OUTPUT": "ACCEPT"}, iter(f"to-{host}" for host in hosts)
    )
    yield "-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT"
    yield "-A FORWARD -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m length --length 0:40 -j DROP"
    yield "-A FORWARD -p icmp -m icmp --icmp-type 8 -m limit --limit 100/sec -j ACCEPT"
    yield "-A FORWARD -s 198.18.0.0/15 -j DROP"
    yield from (f"-A FORWARD -d {host}/32 -j to-{host}" for host in hosts)
    yield f"-A FORWARD {_REJECT}"
    for host in hosts:
        for _ in range(9):
            port = random.choice(_SERVICES) if random.random() < 0.7 else random.randrange(1024, 65000)
            ports = f"{port}:{port + random.randrange(1, 200)}" if random.random() < 0.1 else f"{port}"
            source = (
                f"-s {_network(_private(random), random.choice((32, 24, 24, 16)))} "
                if random.random() < 0.9
                else ""
            )
            protocol = random.choice(("tcp", "tcp", "tcp", "udp"))
            yield f"-A to-{host} {source}-p {protocol} -m {protocol} --dport {ports} -j ACCEPT"
        yield f'-A to-{host} -m comment --comment "everything else" -j DROP'


def _network(address: str, length: int) -> str:
    return str(ip_network((address, length), strict=False))


def _private(random: Random) -> str:
    return f"10.{random.randrange(8)}.{random.randrange(0, 256, 16)}.{random.randrange(1, 255)}"


def _attacker(random: Random) -> str:
    return f"198.{random.choice((18, 19))}.{random.randrange(256)}.{random.randrange(1, 255)}"


if __name__ == "__main__":
    main()
