"""Perl's Net::RVP 0.02 (NET) on libwww-perl, with the sample program that comes with it.

It reads XML into nested hashes, one key for each name; several elements of one name make a list, of which
its look-ups want none.  Written from what protocol notes 2.1, 3, 4.3, 7 and 11 say of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.parsers.expat import ExpatError, ParserCreate

from tests.support.clients.common import STATES, Died, alias_of, method_of, says

#: What its names of namespaces are, whatever the prefixes of a document.
_CANON = {
    "DAV:": "d",
    "http://schemas.microsoft.com/rvp/": "r",
    "http://schemas.microsoft.com/rvp/acl/": "a",
}
_NAME = re.compile(r"/(\w+)$", re.ASCII)

#: An element with something in it; what has only text is that text.
Tree = dict[str, "Value"]
Value = str | Tree | list["str | Tree"]


class NetRvp:
    """A presentity of C{petra}, driven by the sample program."""

    def begin(self) -> None:
        """Its library retries nothing."""

    def answered(self, request: bytes, answer: bytes) -> list[str]:
        """Read the answer to a request."""
        got = _receive(answer)
        method = method_of(request)
        if got.status == 401:
            return [_challenged(got)]
        if got.status // 100 != 2:
            return [f"fails with {got.status}"]
        if method == "SUBSCRIBE" and says(request, "Notification-Type") == "pragma/notify":
            return [_logged_in(got)]
        if method == "SUBSCRIPTIONS":
            return _listed(got)
        if method == "SUBSCRIBE" and got.header("content-type").startswith("text/xml"):
            if got.header("subscription-id") in ("", "0"):
                raise Died("it cannot remember a subscription without id")
            return _properties(alias_of(request), _find(_parse(got.body), *_WHERE))
        if method == "SUBSCRIBE":
            if not says(request, "Subscription-Id"):
                raise Died("it forgets a subscription whose answer is not text/xml")
            return ["renewed"]
        if method == "PROPFIND":
            if not got.header("content-type").startswith("text/xml"):
                raise Died("it reads no properties but text/xml")
            return _properties(alias_of(request), _find(_parse(got.body), *_WHERE))
        return ["succeeds"]

    def notified(self, request: bytes) -> list[str]:
        """Read what its call-back server received."""
        got = _receive(request)
        if not request.startswith(b"NOTIFY / HTTP/1."):
            raise Died("it answers 500 to any path but /")
        top = _find(_parse(got.body), "r:notification")
        if not isinstance(top, dict):
            raise Died("it finds no notification")
        for key, value in top.items():
            if key == "r:message":
                return _messaged(value)
            if key == "r:propnotification":
                source = _user(_text(value, "r:notification-from", "r:contact", "d:href"))
                return _properties(source, _find(value, "d:propertyupdate", "d:set", "d:prop"))
            if not key.startswith("xmlns:"):
                raise Died(f"it answers 500 to {key}")
        raise Died("it answers 500 to an empty notification")


_WHERE = ("d:multistatus", "d:response", "d:propstat", "d:prop")


def _challenged(got: _Received) -> str:
    """NTLM alone has a chance: its credentials are for an empty realm (9.2)."""
    challenges = got.every("www-authenticate")
    for line in challenges:
        scheme, _, token = line.partition(" ")
        if scheme == "NTLM" and "," not in line:
            return "answers the NTLM challenge" if token else "greets with NTLM"
    raise Died(f"it can answer none of {challenges}")


def _logged_in(got: _Received) -> str:
    """The sample program takes the lifetime for the outcome, and its timer 30 seconds off it."""
    if int(got.header("subscription-lifetime") or "0") <= 30:
        raise Died("a login without a Subscription-Lifetime above 30 has failed")
    if int(got.header("subscription-id") or "0") == 0:
        raise Died("with the id 0 it is not logged in")
    return "logged in"


def _listed(got: _Received) -> list[str]:
    """The logins of its own node; it ends all others (3.2)."""
    if not got.header("content-type").startswith("text/xml"):
        raise Died("a list that is not text/xml ends the login")
    tree = _parse(got.body)
    inner = tree.get("r:subscriptions")
    found = _find(inner if isinstance(inner, dict) else tree, "r:subscription", many=True)
    entries = found if isinstance(found, list) else [found]
    return [f"subscription {_text(entry, 'r:subscription-id')}" for entry in entries]


def _messaged(message: Value) -> list[str]:
    """A message: it needs both sides, each once, and two headers of the MIME part."""
    source = _user(_text(message, "r:notification-from", "r:contact", "d:href"))
    _user(_text(message, "r:notification-to", "r:contact", "d:href"))
    data = _text(message, "r:msgbody", "r:mime-data")
    head, *rest = re.split(r"\r?\n\r?\n", data, maxsplit=1)
    lines = re.split(r"\r?\n", re.sub(r"\r?\n\s+", " ", head))
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
    for needed in ("session-id", "content-type"):
        if not headers.get(needed):
            raise Died(f"it answers 500 to a message without {needed}")
    kind = headers["content-type"].lower().partition(";")[0]
    if kind == "text/x-msmsgscontrol":
        return [f"{source} is typing" if headers.get("typinguser") else f"{source} has joined"]
    if kind == "text/x-imleave":
        return [f"{source} has left"]
    return [f"{source} says: {rest[0] if rest else ''}"]


def _properties(source: str, props: Value) -> list[str]:
    """What it knows of somebody from now on; a state is the name of the only child."""
    if not isinstance(props, dict):
        raise Died("it finds no properties")
    noticed = []
    for key, value in props.items():
        if isinstance(value, dict) and len(value) < 2:
            value = next(iter(value), "")
        if not isinstance(value, str):
            raise Died(f"it shows a heap of {key} for {source}")
        if key == "r:state":
            state = value.removeprefix("r:")
            if state not in STATES:
                raise Died(f"it shows {value!r} as a state")
            noticed.append(f"{source} is {state}")
        elif key == "d:displayname":
            noticed.append(f"{source} is called {value}")
        elif key == "r:email":
            noticed.append(f"{source} has the address {value}")
    return noticed


def _user(url: str) -> str:
    """Whom a URL means: letters, digits and underscores at its end, and nothing else will do."""
    found = _NAME.search(url)
    if found is None:
        raise Died(f"it can make no user of {url!r}")
    return found[1].lower()


@dataclass
class _Received:
    """A message as its library reads it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def every(self, name: str) -> list[str]:
        """The values of all headers of that name."""
        return [value for known, value in self.headers if known == name]

    def header(self, name: str) -> str:
        """The value of a header, empty if there is none."""
        return next(iter(self.every(name)), "")


def _receive(data: bytes) -> _Received:
    """Read a message; the library is a good one."""
    head, _, body = data.partition(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    pairs = [part.partition(":") for part in rest]
    status = int(line.split(" ")[1]) if line.startswith("HTTP/") else 0
    got = _Received(status, [(name.strip().lower(), value.strip()) for name, _, value in pairs], body)
    if len(body) < int(got.header("content-length") or "0"):
        raise Died("the body ends too soon")
    return got


def _parse(body: bytes) -> Tree:
    """The document as a tree whose names have canonical prefixes, as declared on the root alone."""
    parser = ParserCreate()
    top: Tree = {}
    nodes: list[tuple[str, Tree, list[str]]] = [("", top, [])]

    def start(name: str, attributes: dict[str, str]) -> None:
        nodes.append((name, dict(attributes), []))

    def end(name: str) -> None:
        _, tree, texts = nodes.pop()
        text = "".join(texts)
        value: str | Tree = text if text.strip() and not tree else tree
        parent = nodes[-1][1]
        held = parent.get(name)
        if held is None:
            parent[name] = value
        else:
            parent[name] = [*(held if isinstance(held, list) else [held]), value]

    def characters(text: str) -> None:
        nodes[-1][2].append(text)

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = characters
    try:
        parser.Parse(body, True)
    except ExpatError as problem:
        raise Died(f"it cannot read the body: {problem}") from problem
    root = next(iter(top.values()))
    prefixes: dict[str, str] = {}
    if isinstance(root, dict):
        for key, declared in root.items():
            if key.startswith("xmlns:") and isinstance(declared, str) and declared in _CANON:
                prefixes[key[6:]] = _CANON[declared]
    return _renamed(top, prefixes)


def _renamed(tree: Tree, prefixes: dict[str, str]) -> Tree:
    """The tree with canonical prefixes."""
    renamed: Tree = {}
    for key, value in tree.items():
        prefix, colon, local = key.partition(":")
        name = f"{prefixes[prefix]}:{local}" if colon and prefix in prefixes else key
        if isinstance(value, list):
            renamed[name] = [_renamed(each, prefixes) if isinstance(each, dict) else each for each in value]
        else:
            renamed[name] = _renamed(value, prefixes) if isinstance(value, dict) else value
    return renamed


def _find(value: Value, *names: str, many: bool = False) -> Value:
    """What is at the end of a path, each step of it single."""
    for name in names:
        if isinstance(value, list):
            raise Died(f"there are too many elements around {name}")
        if not isinstance(value, dict) or name not in value:
            raise Died(f"it cannot find {name}")
        value = value[name]
    if isinstance(value, list) and not many:
        raise Died(f"there are too many {names[-1]}")
    return value


def _text(value: Value, *names: str) -> str:
    """The text at the end of a path."""
    found = _find(value, *names)
    if not isinstance(found, str):
        raise Died(f"it expects text in {names[-1]}")
    return found
