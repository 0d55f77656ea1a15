"""Tests of L{rvpfarm.auth.acl}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.auth.acl import SATISFIES, might_permit_with_credentials, permits
from rvpfarm.auth.challenge import Identity
from rvpfarm.protocol.acls import RIGHTS, Ace, Acl, default_acl
from rvpfarm.protocol.address import Principal, key_to_url

PETRA = "im.fabrik.example/instmsg/aliases/petra"
TOMASZ = "im.fabrik.example/instmsg/aliases/tomasz"
INGRID = "im.orchard.example/instmsg/aliases/ingrid"
ORCHARD = "im.orchard.example"
ALL = frozenset({"assertion", "digest", "ntlm"})
ANONYMOUS = Identity(None, "none")


def caller(key: str, proof: str) -> Identity:
    """The principal C{key}, known by C{proof}."""
    return Identity(Principal(key, key_to_url(key), "/" not in key), proof)


def ace(principal: str | None, credentials: str, grant: str = "", deny: str = "") -> Ace:
    """An entry; words are separated by spaces."""
    url = "" if principal is None else key_to_url(principal)
    words = (frozenset(text.split()) for text in (credentials, grant, deny))
    return Ace(principal, url, *words)


class PermitsTests(SynchronousTestCase):
    """One right, one request: the specific beats the general, and deny beats grant."""

    def check(self, aces: list[Ace], right: str, identity: Identity, expected: bool) -> None:
        """The answer is the same for every order of the entries."""
        for order in (aces, aces[::-1]):
            self.assertIs(permits(Acl(tuple(order)), right, identity, PETRA), expected)

    def test_empty_list(self) -> None:
        """What nobody granted is refused."""
        self.check([], "read", caller(TOMASZ, "digest"), False)
        self.check([], "read", ANONYMOUS, False)

    def test_named(self) -> None:
        """A named principal has what he was granted, and nothing else; nobody else has it."""
        aces = [ace(TOMASZ, "digest", "read")]
        self.check(aces, "read", caller(TOMASZ, "digest"), True)
        self.check(aces, "write", caller(TOMASZ, "digest"), False)
        self.check(aces, "read", caller(INGRID, "digest"), False)
        self.check(aces, "read", ANONYMOUS, False)

    def test_everyone(self) -> None:
        """What everyone may, even the anonymous caller may when an assertion is enough."""
        aces = [ace(None, "assertion digest ntlm", "presence")]
        for identity in (caller(TOMASZ, "digest"), caller(INGRID, "assertion"), ANONYMOUS):
            self.check(aces, "presence", identity, True)

    def test_everyone_with_credentials(self) -> None:
        """Without C{assertion} everyone means everyone who proved who he is."""
        aces = [ace(None, "digest ntlm", "presence")]
        self.check(aces, "presence", caller(TOMASZ, "digest"), True)
        self.check(aces, "presence", caller(TOMASZ, "ntlm"), True)
        self.check(aces, "presence", caller(TOMASZ, "internal"), False)
        self.check(aces, "presence", caller(INGRID, "assertion"), False)
        self.check(aces, "presence", ANONYMOUS, False)

    def test_credentials(self) -> None:
        """Each proof satisfies its own element and C{any}; every one satisfies C{assertion}."""
        for proof in ("ntlm", "digest", "internal", "assertion"):
            for element in ("ntlm", "digest", "internal", "assertion", "any"):
                expected = element in (proof, "any", "assertion")
                self.check([ace(TOMASZ, element, "read")], "read", caller(TOMASZ, proof), expected)
        self.assertEqual(SATISFIES["basic"], SATISFIES["digest"], "a password either way")
        self.assertEqual(set(SATISFIES), {"ntlm", "digest", "basic", "internal", "assertion", "none"})

    def test_deny_beats_grant(self) -> None:
        """Within a level deny beats grant."""
        for principal in (TOMASZ, None):
            aces = [ace(principal, "any", "read"), ace(principal, "any", "", "read")]
            self.check(aces, "read", caller(TOMASZ, "digest"), False)

    def test_specific_beats_general(self) -> None:
        """What names the caller beats what is said of everyone, both ways."""
        granted = [ace(TOMASZ, "any", "read"), ace(None, "any", "", "read")]
        self.check(granted, "read", caller(TOMASZ, "digest"), True)
        denied = [ace(TOMASZ, "any", "", "read"), ace(None, "any", "read")]
        self.check(denied, "read", caller(TOMASZ, "digest"), False)
        self.check(denied, "read", caller(INGRID, "assertion"), True)

    def test_unfit_grant_is_absent(self) -> None:
        """An entry whose credentials do not fit grants nothing, and what everyone may still counts."""
        aces = [ace(TOMASZ, "ntlm", "read write"), ace(None, "any", "read")]
        self.check(aces, "read", caller(TOMASZ, "digest"), True)
        self.check(aces, "write", caller(TOMASZ, "digest"), False)

    def test_deny_without_credentials(self) -> None:
        """A blocked user cannot unblock himself by proving less, or nothing."""
        aces = [ace(INGRID, "ntlm", "", "send-to"), ace(None, "any", "send-to")]
        for proof in ("ntlm", "digest", "assertion", "internal"):
            self.check(aces, "send-to", caller(INGRID, proof), False)

    def test_deny_everyone_by_credentials(self) -> None:
        """An entry that denies everyone counts for those whose credentials fit."""
        aces = [ace(None, "ntlm", "", "read"), ace(None, "digest", "read")]
        self.check(aces, "read", caller(TOMASZ, "digest"), True)
        self.check(aces, "read", caller(TOMASZ, "ntlm"), False)

    def test_all(self) -> None:
        """C{all} stands for every right, in grants and denials."""
        for right in RIGHTS:
            if right == "all":
                continue
            self.check([ace(TOMASZ, "any", "all")], right, caller(TOMASZ, "digest"), True)
            aces = [ace(TOMASZ, "any", right, "all")]
            self.check(aces, right, caller(TOMASZ, "digest"), False)

    def test_owner_keeps_the_list(self) -> None:
        """The owner can always read and replace the list, and only that."""
        aces = [ace(PETRA, "any", "", "all")]
        self.check(aces, "readacl", caller(PETRA, "digest"), True)
        self.check(aces, "writeacl", caller(PETRA, "digest"), True)
        self.check(aces, "write", caller(PETRA, "digest"), False)
        self.check(aces, "writeacl", caller(TOMASZ, "digest"), False)
        self.check(aces, "writeacl", ANONYMOUS, False)

    def test_server(self) -> None:
        """A server-id names the server, and not the users of its domain."""
        aces = [ace(ORCHARD, "assertion", "send-to")]
        self.check(aces, "send-to", caller(ORCHARD, "assertion"), True)
        self.check(aces, "send-to", caller(INGRID, "assertion"), False)

    def test_default_list(self) -> None:
        """The default list lets everyone look and send, and the owner do all."""
        acl = default_acl(caller(PETRA, "digest").principal, authentication=True)
        for right in RIGHTS:
            if right == "all":
                continue
            self.assertTrue(permits(acl, right, caller(PETRA, "digest"), PETRA), right)
            expected = right in ("list", "read", "send-to", "presence")
            for identity in (caller(TOMASZ, "digest"), caller(INGRID, "assertion"), ANONYMOUS):
                self.assertIs(permits(acl, right, identity, PETRA), expected)

    def test_default_list_without_authentication(self) -> None:
        """Where nobody is asked for proof, the owner's word is enough."""
        acl = default_acl(caller(PETRA, "digest").principal, authentication=False)
        self.assertTrue(permits(acl, "write", caller(PETRA, "assertion"), PETRA))
        self.assertFalse(permits(acl, "write", caller(TOMASZ, "assertion"), PETRA))


class MightPermitTests(SynchronousTestCase):
    """401 while credentials may help, 403 when they cannot."""

    def might(self, aces: list[Ace], right: str, identity: Identity = ANONYMOUS) -> bool:
        """Might C{identity} gain by proving who he is?"""
        return might_permit_with_credentials(Acl(tuple(aces)), right, identity, PETRA)

    def test_proved(self) -> None:
        """Whoever proved who he is has nothing to add, nor has a foreign principal."""
        aces = [ace(None, "digest", "read")]
        for proof in ("ntlm", "digest", "internal", "assertion"):
            self.assertFalse(self.might(aces, "read", caller(TOMASZ, proof)))

    def test_somebody(self) -> None:
        """An anonymous caller might be somebody whom the list names, or anybody with credentials."""
        self.assertTrue(self.might([ace(TOMASZ, "digest", "read")], "read"))
        self.assertTrue(self.might([ace(TOMASZ, "assertion", "read")], "read"))
        self.assertTrue(self.might([ace(None, "ntlm", "read")], "read"))

    def test_nobody(self) -> None:
        """Nobody can prove his way to a right that nobody has."""
        self.assertFalse(self.might([], "read"))
        self.assertFalse(self.might([ace(TOMASZ, "digest", "write")], "read"))
        self.assertFalse(self.might([ace(TOMASZ, "internal", "read")], "read"))
        self.assertFalse(self.might([ace(TOMASZ, "any", "read"), ace(TOMASZ, "any", "", "all")], "read"))
        self.assertFalse(self.might([ace(None, "any", "read"), ace(None, "any", "", "read")], "read"))

    def test_one_proof_of_two(self) -> None:
        """It is enough that one kind of credentials would help."""
        aces = [ace(None, "ntlm", "", "read"), ace(None, "ntlm digest", "read")]
        self.assertTrue(self.might(aces, "read"))
        aces = [ace(None, "ntlm digest", "", "read"), ace(None, "ntlm digest", "read")]
        self.assertFalse(self.might(aces, "read"))

    def test_owner(self) -> None:
        """An anonymous caller might always be the owner, who may read and replace the list."""
        self.assertTrue(self.might([], "readacl"))
        self.assertTrue(self.might([], "writeacl"))
