"""Windows Messenger (WIN) and pidgin's librvp (LIB), of whose reading too little is known.

So they are given the strictest reader that protocol notes 2.1, 4.3 and 13.23 make: whatever harms any known
client harms these.  L{Librvp} adds what was seen of librvp 0.9.7 at work.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.clients.common import STATES, Died, alias_of, method_of, says

_TAG = re.compile(r"<(/?)([a-z]+:[a-z-]+)((?: [^<>]*?)?)(/?)>")
_ROOT_DECLARATIONS = " xmlns:d='DAV:' xmlns:r='http://schemas.microsoft.com/rvp/' xmlns:a='http://schemas.microsoft.com/rvp/acl/'"
_TEXTS = frozenset(
    {
        "d:href",
        "d:status",
        "d:displayname",
        "d:timeout",
        "r:email",
        "r:mobile-state",
        "r:mobile-description",
        "r:description",
        "r:subscription-id",
        "r:view-id",
        "a:rvp-principal",
        "a:inheritance",
    }
)


class Strict:
    """Takes what is canonical to the letter, and nothing else."""

    def begin(self) -> None:
        """Nothing is counted."""

    def answered(self, request: bytes, answer: bytes) -> list[str]:
        """Read the answer to a request."""
        got = _receive(answer)
        if re.fullmatch(r"HTTP/1\.1 [1-5][0-9][0-9] [A-Z][A-Za-z -]*", got.line) is None:
            raise Died(f"{got.line!r} is no status line")
        if got.status == 401:
            return [self.challenged(got.every("WWW-Authenticate"))]
        if got.status == 100:
            raise Died("a 100 is taken for the answer")
        if got.status // 100 != 2:
            return [f"fails with {got.status}"]
        if (got.body or got.status == 207) and got.only("Content-Type") != "text/xml":
            raise Died("the body is not text/xml")
        return _answered(request, got)

    def challenged(self, lines: list[str]) -> str:
        """Choose a scheme: integrated Windows authentication before Digest (9.2)."""
        for line in lines:
            if line in ("NTLM", "Negotiate"):
                return f"greets with {line}"
            scheme, _, token = line.partition(" ")
            if scheme in ("NTLM", "Negotiate") and token and "," not in line:
                return f"answers the {scheme} challenge"
        for line in lines:
            if re.match(r'Digest qop="auth", realm="[^",]+", nonce="[^",]+"(, stale=true)?$', line):
                return "answers with Digest"
        raise Died(f"none of {lines} can be answered")

    def notified(self, request: bytes) -> list[str]:
        """Read what a call-back received."""
        got = _receive(request)
        if got.line != "NOTIFY / HTTP/1.1":
            raise Died(f"{got.line!r} is for nobody")
        for name in ("Host", "RVP-Hop-Count", "RVP-From-Principal"):
            got.only(name)
        if got.only("Content-Type") != "text/xml":
            raise Died("the body is not text/xml")
        root = _parse(got.body)
        if root.name != "r:notification" or len(root.children) != 1:
            raise Died("there is not one notification in it")
        place = root.children[0]
        who = _alias(place.at("r:notification-from", "r:contact", "d:href").text)
        place.at("r:notification-from", "r:contact", "r:description")
        if len(place.every("r:notification-to")) != 1:
            raise Died("it is not to one r:notification-to")
        for contact in place.at("r:notification-to").every("r:contact"):
            _alias(contact.at("d:href").text)
            contact.at("r:description")
        if place.name == "r:propnotification":
            return _properties(who, place.at("d:propertyupdate", "d:set", "d:prop"))
        if place.name != "r:message":
            raise Died(f"nothing is known of {place.name}")
        return _messaged(who, place.at("r:msgbody", "r:mime-data").text)


class Librvp(Strict):
    """librvp opens a connection for each request, and reads one challenge only."""

    def challenged(self, lines: list[str]) -> str:
        """Several challenges run together into one that it cannot answer; that was seen."""
        if len(lines) != 1:
            raise Died(f"{len(lines)} challenges run together into one")
        return super().challenged(lines)


def _answered(request: bytes, got: _Received) -> list[str]:
    """What an answer of success says."""
    method = method_of(request)
    if method == "SUBSCRIBE":
        return _subscribed(request, got)
    if method == "PROPFIND":
        return _described(request, _parse(got.body).at("d:response"))
    if method == "PROPPATCH":
        stats = _parse(got.body).at("d:response").every("d:propstat")
        return [
            f"{stat.at('d:status').text[9:12]} for {stat.at('d:prop').children[0].name}" for stat in stats
        ]
    if method == "SUBSCRIPTIONS":
        entries = _parse(got.body).every("r:subscription")
        return [f"{_alias(entry.at('d:href').text)} is subscribed" for entry in entries]
    if method == "ACL" and got.body:
        return [_entry(entry) for entry in _parse(got.body).at("a:acl").every("a:ace")]
    if got.body:
        raise Died("there is a body that nobody expects")
    return ["succeeds"]


def _subscribed(request: bytes, got: _Received) -> list[str]:
    """A login, a renewal, or a contact."""
    number, seconds = got.only("Subscription-Id"), int(got.only("Subscription-Lifetime"))
    if not number.isdigit() or number == "0" or seconds <= 30:
        raise Died(f"it cannot be subscribed as {number} for {seconds} s")
    if says(request, "Subscription-Id"):
        if says(request, "Subscription-Id") != number or got.body:
            raise Died("a renewal is answered with its id and no body")
        return ["renewed"]
    if says(request, "Notification-Type") == "pragma/notify":
        return ["logged in"]
    response = _parse(got.body).at("d:response")
    if len(response.every("d:propstat")) != 1:
        raise Died("there is not one d:propstat")
    return _described(request, response)


def _described(request: bytes, response: _Element) -> list[str]:
    """What a multistatus says of the node that was asked for; what was found comes first."""
    if _alias(response.at("d:href").text) != alias_of(request).lower():
        raise Died("the answer is about somebody else")
    found = response.at("d:propstat")
    if " 200 " not in found.at("d:status").text:
        raise Died("the first d:propstat is not the successful one")
    return _properties(alias_of(request), found.at("d:prop"))


def _entry(entry: _Element) -> str:
    """An access list's entry in words."""
    named = entry.at("a:principal").every("a:rvp-principal")
    who = _alias(named[0].text) if named else "everybody"
    if not entry.at("a:principal", "a:credentials").children:
        raise Died("an entry has no credentials")
    verdicts = []
    for verdict, words in (("a:grant", "may"), ("a:deny", "may not")):
        rights = [right.name[2:] for right in entry.at(verdict).children]
        if rights:
            verdicts.append(f"{words} {' '.join(rights)}")
    return f"{who} {', '.join(verdicts) or 'is named for nothing'}"


def _properties(who: str, props: _Element) -> list[str]:
    """What there is to know of somebody."""
    noticed = []
    for prop in props.children:
        if prop.name == "r:state":
            states = [state.name.removeprefix("r:") for state in prop.children]
            if len(states) != 1 or states[0] not in STATES:
                raise Died(f"{states} is no state")
            noticed.append(f"{who} is {states[0]}")
        elif prop.name == "d:displayname":
            noticed.append(f"{who} is called {prop.text}")
        elif prop.name == "r:email":
            noticed.append(f"{who} has the address {prop.text}")
    return noticed


def _messaged(who: str, data: str) -> list[str]:
    """A message's MIME part (7)."""
    head, empty, text = data.partition("\r\n\r\n")
    headers = {line.partition(":")[0]: line.partition(":")[2].strip() for line in head.split("\r\n")}
    if not empty or not {"MIME-Version", "Content-Type", "Session-Id"} <= headers.keys():
        raise Died(f"{head!r} is not the head of a message")
    kind = headers["Content-Type"].partition(";")[0]
    if kind == "text/plain":
        return [f"{who} says: {text}"]
    if kind == "text/x-imleave":
        return [f"{who} has left"]
    if kind == "text/x-msmsgscontrol":
        return [f"{who} is typing" if headers.get("TypingUser") else f"{who} has joined"]
    return [f"{who} sends {kind}"]


def _alias(url: str) -> str:
    """The name in a logical URL of our IM domain."""
    found = re.fullmatch(r"http://im\.fabrik\.example/instmsg/aliases/([A-Za-z0-9_.-]+)", url)
    if found is None:
        raise Died(f"nobody is known by {url!r}")
    return found[1].lower()


@dataclass(frozen=True)
class _Received:
    """A message without anything unusual in it."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: str

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.line[9:12])

    def every(self, name: str) -> list[str]:
        """The values of all headers of that name, in whatever letter case."""
        return [value for known, value in self.headers if known.lower() == name.lower()]

    def only(self, name: str) -> str:
        """The value of a header that must be there once."""
        values = self.every(name)
        if len(values) != 1:
            raise Died(f"{name} is there {len(values)} times")
        return values[0]


def _receive(data: bytes) -> _Received:
    """Read a message to the letter."""
    head, empty, body = data.partition(b"\r\n\r\n")
    line, *rest = head.decode("ascii").split("\r\n")
    if not empty or "\n" in head.decode("ascii").replace("\r\n", ""):
        raise Died("lines do not end in CR LF")
    fields = []
    for part in rest:
        found = re.fullmatch(r"([A-Za-z-]+): (\S|\S.*\S)", part)
        if found is None:
            raise Died(f"{part!r} is no header on a line of its own")
        fields.append((found[1], found[2]))
    got = _Received(line, tuple(fields), body.decode())
    if got.every("Transfer-Encoding") or got.every("Content-Encoding"):
        raise Died("the body is encoded")
    if int(got.only("Content-Length")) != len(body):
        raise Died("Content-Length is not that of the body")
    if got.only("RVP-Notifications-Version") != "0.2":
        raise Died("it is another version")
    return got


@dataclass
class _Element:
    """An element by its literal name.

    @ivar text: C{CDATA} sections are joined; elements with children have none.
    """

    name: str
    children: list[_Element]
    text: str = ""

    def every(self, name: str) -> list[_Element]:
        """The children of that name."""
        return [child for child in self.children if child.name == name]

    def at(self, *names: str) -> _Element:
        """The element at the end of a path, the first of its name in each step."""
        element = self
        for name in names:
            found = element.every(name)
            if not found:
                raise Died(f"there is no {name} in {element.name}")
            element = found[0]
        return element


def _parse(body: str) -> _Element:
    """Read a canonical document (4.3)."""
    declaration = '<?xml version="1.0"?>'
    if not body.startswith(declaration):
        raise Died("it does not begin with the XML declaration")
    text = body[len(declaration) :]
    top = _Element("", [])
    open_ = [top]
    while text:
        text = _parse_piece(text, open_)
    if len(open_) != 1 or len(top.children) != 1:
        raise Died("there is not one root element, closed at the end")
    return top.children[0]


def _parse_piece(text: str, open_: list[_Element]) -> str:
    """Read a tag, a CDATA section or text, and return what follows it."""
    here = open_[-1]
    if text.startswith("<![CDATA["):
        if here.name != "r:mime-data":
            raise Died(f"there is CDATA in {here.name}")
        data, end, rest = text[9:].partition("]]>")
        here.text += data
        if not end:
            raise Died("CDATA does not end")
        return rest
    if not text.startswith("<"):
        data, _, _ = text.partition("<")
        plain = data.replace("&amp;", "&").replace("&lt;", "<")
        if here.name not in _TEXTS or data.strip() != data or re.search("&(?!amp;|lt;)|>", data):
            raise Died(f"{data!r} is no text for {here.name or 'the end'}")
        here.text += plain
        return text[len(data) :]
    tag = _TAG.match(text)
    if tag is None:
        raise Died(f"{text[:40]!r} is no tag")
    closing, name, attributes, alone = tag.groups()
    if closing:
        if here.name != name or attributes or alone:
            raise Died(f"{tag[0]} closes {here.name}")
        open_.pop()
    else:
        if attributes != (_ROOT_DECLARATIONS if len(open_) == 1 else ""):
            raise Died(f"{attributes!r} is not what is declared on the root alone")
        if alone and (name in _TEXTS or name in ("r:state", "r:mime-data")):
            raise Died(f"{name} closes itself")
        element = _Element(name, [])
        here.children.append(element)
        if not alone:
            open_.append(element)
    return text[tag.end() :]
