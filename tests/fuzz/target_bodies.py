"""The bodies of PROPFIND, PROPPATCH, ACL and their answers: a value or a 400, and the value comes back."""

from __future__ import annotations

from rvpfarm.client.documents import parse_multistatus
from rvpfarm.protocol.acls import MOST_ENTRIES, Ace, parse_acl, render_acl
from rvpfarm.protocol.address import parse_principal
from rvpfarm.protocol.calls import BadRequest
from rvpfarm.protocol.properties import (
    STATES,
    Change,
    FindKind,
    Propstat,
    parse_propertyupdate,
    parse_propfind,
    render_empty,
    render_leased_prop,
    render_leased_state,
    render_multistatus,
    render_prop,
    render_state,
)
from rvpfarm.protocol.subscriptions import SubscriptionEntry, render_subscriptions
from rvpfarm.protocol.xml import DAV, STATE, QName, parse_xml, render_document
from tests.fuzz import target_xml
from tests.fuzz.trees import damage_tree
from tests.protocol.test_acls import NAMES
from tests.support import printed

_PARTS = (
    *(
        b"d:propertyupdate",
        b"d:propupdate",
        b"d:set",
        b"d:remove",
        b"d:prop",
        b"d:propfind",
        b"d:allprop",
        b"d:propname",
    ),
    *(b"d:multistatus", b"d:response", b"d:href", b"d:propstat", b"d:status", b"d:timeout", b"d:displayname"),
    *(
        b"r:state",
        b"r:leased-value",
        b"r:value",
        b"r:default-value",
        b"r:view-id",
        b"r:email",
        b"r:mobile-state",
    ),
    *(
        b"r:mobile-description",
        b"r:online",
        b"r:offline",
        b"r:idle",
        b"r:shoe-size",
        b"a:rvpacl",
        b"a:acl",
        b"a:ace",
    ),
    *(
        b"a:inheritance",
        b"a:principal",
        b"a:rvp-principal",
        b"a:allprincipals",
        b"a:credentials",
        b"a:grant",
        b"a:deny",
    ),
    *(b"a:allow", b"a:any", b"a:assertion", b"a:digest", b"a:ntlm", b"a:all", b"a:list", b"a:write", b"x:y"),
)
TOKENS = (
    *(token for token in target_xml.TOKENS if len(token) < 60),
    *(b"<%s>" % part for part in _PARTS),
    *(b"</%s>" % part for part in _PARTS),
    *(b"<%s/>" % part for part in _PARTS),
    *(
        b"1200",
        b"0",
        b"9" * 40,
        b"none",
        b"HTTP/1.1 200 Successful",
        b"HTTP/1.1 404",
        b"http://im.fabrik.example",
    ),
)

STEPS = (damage_tree,)


def seeds() -> list[bytes]:
    """The printed bodies, and what the drafts write otherwise."""
    return [
        *target_xml.seeds(),
        printed.PROPFIND.replace(b"<d:displayname/>", b"<r:state/><x xmlns='urn:x'/><y/>"),
        printed.PROPPATCH.replace(b"</r:leased-value>", b"</r:leased-value><r:view-id> 07 </r:view-id>"),
        printed.PROPPATCH.replace(b"d:set", b"d:remove"),
        printed.PROPPATCH.replace(b"r:state", b"r:email"),
        printed.PROPERTY[: printed.PROPERTY.index(b"<r:propnot")].replace(
            b"r:notification", b"d:propertyupdate"
        )
        + b"<d:set><d:prop><r:state><r:busy/></r:state></d:prop></d:set></d:propertyupdate>",
        printed.PROPPATCH_PLAIN.replace(
            b"<r:mobile-state>", b"<z xmlns='urn:z' b='c'>1<q/></z><r:mobile-state>"
        ),
        printed.ACL.replace(b"a:grant", b"a:allow").replace(b"<a:deny/>", b"<a:deny><a:all/></a:deny>"),
    ]


def fuzz_one(data: bytes) -> None:
    """Read C{data} as every one of these bodies."""
    _find(data)
    _update(data)
    _list(data)
    _answer(data)
    try:
        text = data[:200].decode()
    except UnicodeDecodeError:
        return
    parse_xml(render_subscriptions((SubscriptionEntry(len(data), text, 1),)))


def _find(data: bytes) -> None:
    try:
        wanted = parse_propfind(data)
    except BadRequest:
        return
    assert (wanted.kind is FindKind.NAMED) == bool(wanted.names)
    if wanted.names:
        asked = "".join(render_empty(name) for name in wanted.names)
        again = render_document("d:propfind", f"<d:prop>{asked}</d:prop>")
        assert parse_propfind(again) == wanted


def _update(data: bytes) -> None:
    try:
        changes = parse_propertyupdate(data)
    except BadRequest:
        return
    assert changes
    steps, told = [], []
    for one in changes:
        assert one.view is None or 0 <= one.view <= 9999999999
        assert one.lease is None or one.lease.timeout is None or 0 <= one.lease.timeout <= 9999999999
        if one.problem or (one.view is not None and one.lease is None):
            continue
        steps.append(f"<d:{one.action}><d:prop>{_prop(one)}</d:prop></d:{one.action}>")
        told.append(one)
    _same_changes(told, steps)


def _prop(one: Change) -> str:
    """The property in a change, as our answers and notifications write it."""
    if one.action == "remove":
        return render_empty(one.name)
    if one.lease is not None and one.lease.default is not None and one.lease.timeout is not None:
        if one.name == STATE:
            return render_leased_state(one.value, one.lease.default, one.lease.timeout, one.view or 0)
        return render_leased_prop(one.name, one.value, one.lease.default, one.lease.timeout)
    if one.name == STATE:
        assert one.value in STATES
        return render_state(one.value)
    return render_prop(one.name, one.value)


def _same_changes(told: list[Change], steps: list[str]) -> None:
    """What was written into one document is read as it was meant."""
    if not told:
        return
    try:
        again = parse_propertyupdate(render_document("d:propertyupdate", "".join(steps)))
    except BadRequest as refused:
        assert "deeper" in refused.text, refused.text  # a step is written around what was a value before
        return
    assert [(one.action, one.name, one.value, one.problem) for one in again] == [
        (one.action, one.name, one.value, False) for one in told
    ]
    for one, meant in zip(again, told, strict=True):
        if one.lease is not None:
            assert one.lease == meant.lease


def _list(data: bytes) -> None:
    try:
        acl = parse_acl(data, NAMES)
    except BadRequest:
        return
    assert len(acl.aces) <= MOST_ENTRIES
    for ace in acl.aces:
        _check_entry(ace)
    assert parse_acl(render_acl(acl), NAMES) == acl


def _check_entry(ace: Ace) -> None:
    assert ace.credentials
    assert (ace.principal is None) == (not ace.principal_url)
    if ace.principal is not None:
        assert parse_principal(ace.principal_url, NAMES).key == ace.principal


def _answer(data: bytes) -> None:
    try:
        status, told = parse_multistatus(data)
    except BadRequest:
        return
    assert status >= 0
    names = [render_empty(QName(DAV, name)) for name in told.texts]
    body = render_multistatus("http://a/<&>", (Propstat(404, tuple(names)), Propstat(200, ("<r:state/>",))))
    assert parse_multistatus(body)[0] == 404
