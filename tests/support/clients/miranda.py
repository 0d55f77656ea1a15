"""The RVP plugin of Miranda IM (MIR): its own HTTP, and its own XML, which knows no namespaces.

Written from what protocol notes 1.5, 2.1, 4.3, 7, 9 and 11 say of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.support.clients.common import IM_DOMAIN, MAIL_DOMAIN, STATES, Died, alias_of, method_of, says

_SPACE = " \t\r\n"


class Miranda:
    """A user signed in as C{petra@fabrik.example}, whose SRV record names the IM domain."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A transaction: one connection, and the 401s on it (9.2)."""
        self._rejections, self._most = 0, 1

    def answered(self, request: bytes, answer: bytes) -> list[str]:
        """Read the answer to a request."""
        got = _receive(answer)
        if got.status == 401:
            return [self._authenticate(got)]
        if got.status == 302:
            return [_redirected(got)]
        if got.status // 100 != 2:
            return [f"fails with {got.status}"]
        method = method_of(request)
        if method == "SUBSCRIBE":
            return self._subscribed(request, got)
        if method == "ACL":
            return self._acl(got)
        return ["succeeds"]

    def notified(self, request: bytes) -> list[str]:
        """Read a notification; by now it has been answered 200."""
        got = _receive(request)
        root = _child(_parse(got.body), "r:notification")
        if root is None:
            return []
        noticed: list[str] = []
        for place in [each for each in root.children if each.name == "r:propnotification"]:
            noticed += _changed(place)
        message = _child(root, "r:message")
        if message is not None:
            noticed += _messaged(message)
        return noticed

    def _authenticate(self, got: _Received) -> str:
        """Choose a scheme: NTLM before Digest, each line of its own, letter for letter (9.1, 9.2)."""
        if self._rejections > self._most:
            raise Died("it gives up: one 401 too many")
        self._rejections += 1
        lines = got.every("WWW-Authenticate")
        for line in lines:
            if line.startswith("NTLM"):
                self._most = 2
                if line == "NTLM":
                    return "greets with NTLM"
                if not line.startswith("NTLM TlRMTVNTUAAC"):
                    raise Died(f"it takes {line!r} for an NTLM challenge")
                return "answers the NTLM challenge"
        for line in lines:
            if line.startswith("Digest"):
                pairs = [pair.partition("=") for pair in line[7:].split(",")]
                values = {name.strip(' \t"'): value.strip(' \t"') for name, _, value in pairs}
                if "realm" not in values or "nonce" not in values:
                    raise Died(f"it finds no realm or no nonce in {line!r}")
                if values.get("algorithm", "MD5") != "MD5":
                    raise Died(f"it answers {line!r} with MD5")
                return "answers with Digest"
        raise Died(f"it knows none of {lines}")

    def _subscribed(self, request: bytes, got: _Received) -> list[str]:
        """A login, a renewal, or a contact."""
        number = got.every("Subscription-Id")
        if not number:
            raise Died("without a Subscription-Id it can never renew")
        if says(request, "Subscription-Id"):
            return ["renewed"]
        if says(request, "Notification-Type") == "pragma/notify":
            return ["logged in"]
        who = f"{alias_of(request)}@{MAIL_DOMAIN}"
        node = _parse(got.body)
        for name in ("d:multistatus", "d:response", "d:propstat", "d:prop"):
            found = _child(node, name)
            if found is None:
                raise Died(f"it finds no {name}, and {who} stays offline for ever")
            node = found
        noticed = []
        for prop in node.children:
            if prop.name == "r:state":
                noticed.append(f"{who} is {_state(prop)}")
            elif prop.name == "d:displayname":
                noticed.append(f"{who} is called {_text(prop)}")
            elif prop.name == "r:email":
                noticed.append(f"{who} has the address {_text(prop)}")
        return noticed

    def _acl(self, got: _Received) -> list[str]:
        """It walks the list, and does nothing with it yet."""
        root = _child(_parse(got.body), "a:rvpacl")
        acl = None if root is None else _child(root, "a:acl")
        if acl is None:
            raise Died("it finds no a:rvpacl with an a:acl")
        noticed = []
        for entry in [each for each in acl.children if each.name == "a:ace"]:
            principal = _child(entry, "a:principal")
            named = None if principal is None else _child(principal, "a:rvp-principal")
            if named is not None:
                noticed.append(f"the access list names {_text(named)}")
        return noticed


def _changed(place: _Element) -> list[str]:
    """A property notification: whose, and the state in its first C{d:set}."""
    update = _child(place, "d:propertyupdate") or _child(place, "d:propstat")
    sender = _child(place, "r:notification-from")
    contact = None if sender is None else _child(sender, "r:contact")
    step = None if update is None else _child(update, "d:set")
    href = None if contact is None else _child(contact, "d:href")
    props = None if step is None else _child(step, "d:prop")
    if href is None or props is None:
        raise Died("it finds nothing in the propnotification")
    state = _child(props, "r:state")
    return [] if state is None else [f"{_login(_text(href))} is {_state(state)}"]


def _messaged(message: _Element) -> list[str]:
    """A message: from whom, and what its MIME part says (7.1)."""
    sender, body = _child(message, "r:notification-from"), _child(message, "r:msgbody")
    contact = None if sender is None else _child(sender, "r:contact")
    data = None if body is None else _child(body, "r:mime-data")
    href = None if contact is None else _child(contact, "d:href")
    if contact is None or data is None or href is None:
        raise Died("it ignores a message that is not where it looks")
    if data.cdata is None:
        raise Died("it ignores mime-data that is no CDATA")
    who = _login(_text(href))
    description = _child(contact, "r:description")
    if description is None or description.text is None:
        raise Died("there is no r:description, or it closes itself")
    headers, text = _mime(data.cdata)
    kind = headers.get("content-type", "")
    if "session-id" not in headers:
        raise Died("it ignores a message without Session-Id")
    if kind.startswith("text/x-msmsgscontrol"):
        return [f"{who} is typing"] if "typinguser" in headers else []
    if kind.startswith("text/plain"):
        return [f"{who} ({description.text}) says: {text}"] if text else []
    return []


def _mime(data: str) -> tuple[dict[str, str], str]:
    """Headers up to the first line that is empty or has no colon, and what follows; no folding."""
    headers: dict[str, str] = {}
    while data:
        line, _, data = data.partition("\n")
        name, colon, value = line.rstrip("\r").partition(":")
        if not colon:
            break
        headers.setdefault(name.strip(" \t").lower(), value.strip(" \t"))
    return headers, data


def _state(prop: _Element) -> str:
    """A state is the name of the first child; what it does not know is online."""
    if not prop.children:
        raise Died("r:state has no child")
    prefix, _, name = prop.children[0].name.partition(":")
    if prefix != "r" or name not in STATES:
        raise Died(f"it takes {prop.children[0].name} for online")
    return name


def _text(element: _Element) -> str:
    """The text in an element."""
    if element.text is None:
        raise Died(f"{element.name} closes itself")
    return element.text


def _login(url: str) -> str:
    """Whom a URL means: the last part of its path, at the mail domain that the host stands for (1.5)."""
    host, slash, path = url.removeprefix("http://").partition("/")
    if not slash or host.lower() != IM_DOMAIN:
        raise Died(f"nobody it knows is at {url!r}")
    alias = path.rpartition("/")[2]
    if alias.strip(_SPACE) != alias:
        raise Died(f"white space is part of the name in {url!r}")
    return f"{alias}@{MAIL_DOMAIN}"


def _redirected(got: _Received) -> str:
    """It goes wherever it is sent, with every method, for ever (10.2)."""
    places = got.every("Location")
    if not places or not places[0].startswith("http://") or "?" in places[0]:
        raise Died(f"it cannot go to {places}")
    return f"goes to {places[0]}"


@dataclass
class _Received:
    """What its HTTP makes of a message."""

    status: int
    headers: list[tuple[str, str]]
    body: str

    def every(self, name: str) -> list[str]:
        """The values of all headers of that name."""
        return [value for known, value in self.headers if known.lower() == name.lower()]


def _receive(data: bytes) -> _Received:
    """Read a message as it does: status in columns 10 to 12, a body by C{Content-Length} and no other way."""
    line, data = _line(data)
    status = int(line[9:12]) if line.startswith("HTTP/") and line[9:12].isdigit() else 500
    headers: list[tuple[str, str]] = []
    while True:
        line, data = _line(data)
        name, colon, value = line.partition(":")
        if not colon:
            break
        headers.append((name.strip(" \t"), value.strip(" \t")))
    got = _Received(status, headers, "")
    lengths = [int(value) for value in got.every("Content-Length")]
    if len(data) < sum(lengths):
        raise Died(f"it waits for {sum(lengths) - len(data)} octets that never come")
    if len(data) > sum(lengths):
        raise Died(f"it takes the last {len(data) - sum(lengths)} octets for the next answer")
    got.body = data.decode()
    return got


def _line(data: bytes) -> tuple[str, bytes]:
    """A line, without any CR that is in it, and the rest."""
    line, end, rest = data.partition(b"\n")
    if not end:
        raise Died("it waits for the end of a line")
    return line.replace(b"\r", b"").decode("latin-1"), rest


@dataclass
class _Element:
    """An element by its literal name.

    @ivar text: C{None} when the element closes itself, which nobody there expects.
    """

    name: str
    children: list[_Element] = field(default_factory=list)
    text: str | None = None
    cdata: str | None = None


def _child(element: _Element, name: str) -> _Element | None:
    """The first child of that name, prefix and all."""
    return next((child for child in element.children if child.name == name), None)


def _parse(text: str) -> _Element:
    """Read XML as it does: no namespaces, no entities, and nothing after the first surprise."""
    top = _Element("", text="")
    open_: list[_Element] = [top]
    while text:
        before, bracket, text = text.partition("<")
        here = open_[-1]
        here.text = (here.text or "") + (before if here.text else before.lstrip(_SPACE))
        if not bracket:
            break
        if text.startswith("![CDATA["):
            data, _, text = text[8:].partition("]]>")
            here.cdata = (here.cdata or "") + data
            continue
        tag, _, text = text.partition(">")
        if tag.startswith("/"):
            if tag[1:].strip(_SPACE) != here.name or len(open_) == 1:
                break
            open_.pop()
        elif not tag.startswith(("!", "?")):
            name = tag.rstrip("/").split(None, 1)[0] if tag.strip("/ ") else ""
            element = _Element(name)
            here.children.append(element)
            if not tag.endswith("/"):
                element.text = ""
                open_.append(element)
    return top
