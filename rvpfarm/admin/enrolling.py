"""Users whose IM address the DNS may have to decide: enabled, and readdressed, in one step each (F20)."""

from __future__ import annotations

from rvpfarm.admin.addresses import (
    MAIL,
    RULES,
    Readdressed,
    question_about,
    question_of,
    readdress_user,
)
from rvpfarm.admin.checks import Refused
from rvpfarm.admin.forms import Asker
from rvpfarm.admin.users import enable_user, existing_user
from rvpfarm.directory.model import Account
from rvpfarm.directory.store import Store


def enroll_user(
    store: Store,
    address: str,
    home: str | None = None,
    domain: str | None = None,
    display_name: str | None = None,
    password: str | None = None,
    *,
    email: str | None = None,
    address_form: str | None = None,
    actor: str | None = None,
) -> Account:
    """Let somebody use instant messaging: a new account, or one that was disabled.

    A disabled one keeps what is not given anew; its address does not change.

    @param address: the mail address or the IM address.
    @param home: the name of the home that will own it; left out, the one with the fewest accounts.
    @param domain: the IM domain, when it does not follow from the address.
    @param display_name: what others see; left out, the name in the address.
    @param password: left out, none is set, or that of before stays.
    @param email: the mail address, where it is not C{address}.
    @param address_form: C{mail}, C{im}, or C{srv} to ask the DNS; left out, the policy C{address-form}.
    @raise Refused: see the sentence.
    """
    _check_rule(address_form, "--address-form")
    with store.read() as reading:
        question = question_about(reading, address, domain, address_form)
    form = MAIL if question is None else Asker(None).decide(question).form
    return enable_user(
        store, address, home, domain, display_name, password, email=email, form=form, actor=actor
    )


def readdress(
    store: Store, address: str, form: str | None = None, *, actor: str | None = None
) -> Readdressed:
    """Decide the IM address of a user anew, such as after the mail domain got its SRV record.

    Public URL, home, sign-in names and password stay, and both forms lead to the same user.

    @param address: the mail address or the IM address.
    @param form: C{mail}, C{im}, or C{srv} to ask the DNS; left out, the policy C{address-form}.
    @raise Refused: there is no such user.
    """
    _check_rule(form, "--form")
    with store.read() as reading:
        account = existing_user(reading, address)
        question = question_of(reading.farm(), account, form)
    return readdress_user(store, account.address, Asker(None).decide(question).form, actor=actor)


def _check_rule(rule: str | None, option: str) -> None:
    """
    @raise Refused: it is given, and none of L{RULES}.
    """
    if rule is not None and rule not in RULES:
        raise Refused(f'"{rule}" is no form of an address; give {option} one of {", ".join(RULES)}')
