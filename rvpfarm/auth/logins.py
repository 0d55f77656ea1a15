"""Login names in every form in which clients send them, and what is kept to check a password by."""

from __future__ import annotations

from urllib.parse import quote

from rvpfarm.auth.digest import SCHEMES, Algorithm, ha1
from rvpfarm.auth.ntlm import nt_hash
from rvpfarm.directory.model import Domain, Farm, Verifier
from rvpfarm.protocol.address import USERS

#: The verifier scheme of NTLM.
NT = "nt"


class Logins:
    """Which node a login name means."""

    def __init__(self, farm: Farm) -> None:
        """
        @param farm: whose domains and their names count.
        """
        self.farm = farm
        self._hosts: dict[str, str] = {}
        self._netbios: dict[str, str] = {}
        for domain in farm.domains.values():
            for host in (*domain.mail_domains, *domain.aliases):
                self._hosts.setdefault(host.lower(), domain.name)
            if domain.netbios:
                self._netbios.setdefault(domain.netbios.upper(), domain.name)
        self._hosts.update((name.lower(), name) for name in farm.domains)

    def key(self, login: str, realm: str) -> str | None:
        """The key of the node of C{login}: C{petra}, C{petra@domain}, or with the NetBIOS name in front.

        @param realm: the IM domain of a name that says none itself.
        @return: C{None} when it cannot mean anybody.
        """
        prefix, slash, name = login.replace("\\", "/", 1).partition("/")
        domain: str | None
        if slash:
            domain = self._netbios.get(prefix.upper()) or self._hosts.get(prefix.lower())
        else:
            name, at, host = login.rpartition("@")
            if not at:
                name, host = login, realm
            domain = self._hosts.get(host.lower())
        if domain is None or not name:
            return None
        return f"{domain}{USERS}{quote(name, safe=_SAFE)}".lower()


#: What stands unescaped in the name of a node.
_SAFE = "-_.~!$'+"


def login_names(alias: str, domain: Domain) -> tuple[str, ...]:
    """Every form in which a client may send the login name of C{alias}, each of them once.

    A Digest response hashes the name exactly as it was typed, so there must be a verifier for each: in
    the directory's letter case and in lower case, alone, as an address, and after the NetBIOS name, with
    the backslash that Windows writes and the slash that Miranda writes.
    """
    hosts = (domain.name, *domain.mail_domains)
    prefixes = (domain.netbios, domain.netbios.lower()) if domain.netbios else ()
    found: dict[str, None] = {}
    for name in (alias, alias.lower()):
        found[name] = None
        found.update((f"{name}@{host}", None) for host in hosts)
        found.update((f"{prefix}{mark}{name}", None) for prefix in prefixes for mark in "\\/")
    return tuple(found)


def make_verifiers(
    alias: str, domain: Domain, password: str, *, digest: bool = True, nt: bool = True
) -> tuple[Verifier, ...]:
    """What the directory keeps in place of C{password}.

    @param digest: make those of Digest, for every login name and both algorithms; the policy
        C{digest-verifiers} must be C{allowed}.
    @param nt: make the one of NTLM, which no login name goes into; the policy C{nt-hashes} must be
        C{allowed}.
    """
    algorithms: tuple[Algorithm, ...] = ("MD5", "SHA-256") if digest else ()
    made = [
        Verifier(SCHEMES[algorithm], name, domain.name, ha1(algorithm, name, domain.name, password))
        for algorithm in algorithms
        for name in login_names(alias, domain)
    ]
    if nt:
        made.append(Verifier(NT, alias, "", nt_hash(password).hex()))
    return tuple(made)
