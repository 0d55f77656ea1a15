"""May this principal use this right on this node (protocol notes 8.4).

The list itself, L{Acl}, is read and written by C{rvpfarm.protocol}.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rvpfarm.auth.challenge import Identity
    from rvpfarm.protocol.acls import Acl

#: Which credentials elements each proof satisfies: stronger ones satisfy C{assertion} too, and an anonymous
#: caller, who claims nothing, may do what C{allprincipals} may on an assertion (protocol notes 2.2, 8.3).
SATISFIES: dict[str, frozenset[str]] = {
    "ntlm": frozenset({"any", "ntlm", "assertion"}),
    "digest": frozenset({"any", "digest", "assertion"}),
    "basic": frozenset({"any", "digest", "assertion"}),
    "internal": frozenset({"any", "internal", "assertion"}),
    "assertion": frozenset({"any", "assertion"}),
    "none": frozenset({"any", "assertion"}),
}

#: What an anonymous caller could still prove.
_PROVABLE = ("ntlm", "digest")

#: Rights that no list takes from the owner of a node.
OWNER_RIGHTS = frozenset({"readacl", "writeacl"})


def permits(acl: Acl, right: str, identity: Identity, owner_key: str) -> bool:
    """May C{identity} use C{right} on the node of the principal C{owner_key}?

    What names the caller beats what is said of everyone; within each, deny beats grant.  A deny that
    names the caller holds whatever the credentials, or a blocked user could unblock himself by not
    proving who he is.

    @param right: one right by name, not C{"all"}.
    """
    caller = None if identity.principal is None else identity.principal.key
    if caller is not None and caller == owner_key and right in OWNER_RIGHTS:
        return True
    proofs = SATISFIES[identity.proof]
    granted = everyone = barred = False
    for ace in acl.aces:
        if ace.principal is None:
            if not proofs.isdisjoint(ace.credentials):
                barred = barred or right in ace.deny or "all" in ace.deny
                everyone = everyone or right in ace.grant or "all" in ace.grant
        elif ace.principal == caller:
            if right in ace.deny or "all" in ace.deny:
                return False
            if right in ace.grant or "all" in ace.grant:
                granted = granted or not proofs.isdisjoint(ace.credentials)
    return granted or (everyone and not barred)


def might_permit_with_credentials(acl: Acl, right: str, identity: Identity, owner_key: str) -> bool:
    """Might the refused request of C{identity} succeed if its caller proved who he is?

    Then it is answered 401, otherwise 403.  Only an anonymous caller can gain: whoever asserts to be a
    principal of this farm has been asked for proof before, and a foreign principal has none to give.

    @param owner_key: key of the principal whose node it is, who might be the caller.
    """
    if identity.proof != "none":
        return False
    if right in OWNER_RIGHTS:
        return True
    barred = {ace.principal for ace in acl.aces if _covers(ace.deny, right)}
    for proof in _PROVABLE:
        proofs = SATISFIES[proof]
        if _permits_everyone(acl, right, proofs):
            return True
        for ace in acl.aces:
            if ace.principal is None or ace.principal in barred:
                continue
            if _covers(ace.grant, right) and not proofs.isdisjoint(ace.credentials):
                return True
    return False


def _permits_everyone(acl: Acl, right: str, proofs: frozenset[str]) -> bool:
    """Does the list permit C{right} to whoever has one of C{proofs}?"""
    granted = False
    for ace in acl.aces:
        if ace.principal is None and not proofs.isdisjoint(ace.credentials):
            if _covers(ace.deny, right):
                return False
            granted = granted or _covers(ace.grant, right)
    return granted


def _covers(rights: frozenset[str], right: str) -> bool:
    """Is C{right} among C{rights}, by name or by C{all}?"""
    return right in rights or "all" in rights
