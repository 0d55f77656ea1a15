"""What may be kept to check passwords by, what is, and what to do when that does not do.

A scheme works for a user when the policies let its verifiers be kept B{and} the password was set since: no
password is stored, so nothing can be made of it later (product F38, D18).  Forbidding, on the other hand,
takes effect at once: in the same transaction what is kept already goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rvpfarm.admin.checks import Refused, check_password, enumerate_names
from rvpfarm.auth.digest import SCHEMES
from rvpfarm.auth.logins import NT, make_verifiers
from rvpfarm.directory.ldapsettings import LINK
from rvpfarm.directory.model import Account, Farm
from rvpfarm.directory.reading import Kept
from rvpfarm.directory.writing import Writing

#: The policies that say what may be kept, and the verifier schemes that each is about.
KEEPING: Mapping[str, tuple[str, ...]] = {
    "digest-verifiers": tuple(SCHEMES.values()),
    "nt-hashes": (NT,),
}

#: The values of L{KEEPING}.
ALLOWED, FORBIDDEN = "allowed", "forbidden"

#: Which verifiers an offered scheme needs.  Negotiate may do without: it carries NTLM, or Kerberos.
NEEDS: Mapping[str, str] = {**{scheme: scheme for scheme in SCHEMES.values()}, "ntlm": NT}


@dataclass(frozen=True, slots=True)
class PasswordState:
    """What one user's password is good for.

    @ivar since: when it was set; C{None} when there is none, or that is not known.
    @ivar kept: the schemes of the verifiers that are kept.
    @ivar works: the offered schemes by which the user can sign in.
    @ivar missing: those by which it cannot, for the password was not set since they were allowed.
    @ivar forbidden: those by which it cannot, for a policy forbids it.
    @ivar policies: settings of the user's own.
    @ivar remedy: the commands that bring the user back to what is missing; none when nothing is.
    """

    since: float | None
    kept: tuple[str, ...]
    works: tuple[str, ...]
    missing: tuple[str, ...]
    forbidden: tuple[str, ...]
    policies: Mapping[str, str]
    remedy: tuple[str, ...]


def policy_for(farm: Farm, domain: str, own: Mapping[str, str], name: str) -> str:
    """The setting C{name} that counts for one account: its own, else that of its domain or the farm."""
    return own.get(name) or farm.policy(name, domain)


def describe(farm: Farm, account: Account, kept: Kept) -> PasswordState:
    """What the password of C{account} is good for, and what to do about the rest."""
    words = farm.policy("schemes", account.domain).split()
    works: list[str] = []
    missing: list[str] = []
    forbidden: list[str] = []
    for word in words:
        scheme = NEEDS.get(word, NT)
        policy = policy_for(farm, account.domain, kept.policies, _policy_of(scheme))
        if word == "basic" and LINK in kept.policies:
            works.append(word)  # the LDAP directory checks it
        elif scheme in kept.schemes and policy == ALLOWED:
            works.append(word)
        elif word in NEEDS:
            (forbidden if policy == FORBIDDEN else missing).append(word)
    remedy = []
    if forbidden and not (missing or works):  # one of them has to be allowed first
        name = _policy_of(NEEDS[forbidden[0]])
        remedy.append(f"rvpfarm user policy {account.address} {name} {ALLOWED}")
    if (missing and not ("basic" in works and LINK in kept.policies)) or remedy:
        remedy.append(f"rvpfarm user passwd {account.address}")
    return PasswordState(
        kept.since,
        kept.schemes,
        tuple(works),
        tuple(missing),
        tuple(forbidden),
        kept.policies,
        tuple(remedy),
    )


def put_password(writing: Writing, farm: Farm, account: Account, password: str) -> None:
    """Replace what proves C{account}, by as much as the policies let be kept.

    @raise Refused: the password is too weak, or nothing may be kept of it.
    """
    check_password(password, account.alias, int(farm.policy("password-length", account.domain)))
    own = writing.kept(account.id).policies
    may = {name: policy_for(farm, account.domain, own, name) == ALLOWED for name in KEEPING}
    if not any(may.values()):
        raise Refused(
            f"the policies {enumerate_names(KEEPING)} forbid to keep what a password is checked by; "
            f'"rvpfarm policy set {next(iter(KEEPING))} {ALLOWED}" permits it'
        )
    domain = farm.domains[account.domain]
    made = make_verifiers(
        account.alias, domain, password, digest=may["digest-verifiers"], nt=may["nt-hashes"]
    )
    writing.put_verifiers(account, made)


def enforce(writing: Writing, name: str) -> int:
    """The policy C{name} may have been changed: drop everywhere what it forbids to keep.

    @return: how many users lost something.
    """
    if name not in KEEPING:
        return 0
    farm = writing.farm()
    forbidding = [domain for domain in farm.domains if farm.policy(name, domain) == FORBIDDEN]
    return writing.drop_verifiers_in(forbidding, KEEPING[name], name, ALLOWED) if forbidding else 0


def set_own_policy(writing: Writing, account: Account, name: str, value: str) -> tuple[str, ...]:
    """Give C{account} a setting of its own, or with C{"default"} take it back; drop what it then forbids.

    @return: the schemes whose verifiers were dropped.
    @raise Refused: an account cannot have that setting.
    """
    if name not in KEEPING:
        raise Refused(f'a user has no policy "{name}" of his own; give one of {enumerate_names(KEEPING)}')
    if value not in (ALLOWED, FORBIDDEN, "default"):
        raise Refused(f'"{value}" is no value of {name}; give {ALLOWED}, {FORBIDDEN} or default')
    writing.set_account_policy(account, name, None if value == "default" else value)
    kept = writing.kept(account.id)
    if policy_for(writing.farm(), account.domain, kept.policies, name) != FORBIDDEN:
        return ()
    writing.drop_verifiers(account, KEEPING[name])
    return tuple(scheme for scheme in kept.schemes if scheme in KEEPING[name])


def _policy_of(scheme: str) -> str:
    """The policy that says whether verifiers of C{scheme} may be kept."""
    return next(name for name, schemes in KEEPING.items() if scheme in schemes)
