"""Transcripts: a conversation with a home, written down so that people can read it and programs can play it.

The format is described in C{docs/transcripts.md}; this module reads it, L{tests.support.stage} plays it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: What the marks at the beginning of a line say.
REQUEST, ANSWER, CALL_BACK, REPLY = ">>", "<<", "**", "=="
MARKS = (REQUEST, ANSWER, CALL_BACK, REPLY)

#: What stands in for a value that a server chooses, by the word after the colon.
WILDCARDS = {
    "number": r"[1-9][0-9]*",
    "hex": r"[0-9a-f]+",
    "base64": r"[A-Za-z0-9+/]+=*",
}

_LINE_ENDS = {"LF": "\n", "CRLF": "\r\n"}
_PROFILES = ("O", "S")
_PLACE = re.compile(r"\$\{([a-z0-9-]*)(?::([a-z0-9]+))?\}")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "r": "\r", "\\": "\\"}
_SCENES = (
    re.compile(
        r"(?P<who>\w+), (?P<what>new connection)(?: (?P<label>\w+))?(?:, by (?P<scheme>NTLM|Digest))?"
    ),
    re.compile(r"(?P<who>\w+), (?P<what>connection) (?P<label>\w+)"),
    re.compile(r"(?P<who>\w+), (?P<what>same connection|call-back)"),
    re.compile(r"(?P<who>\w+) (?P<what>hangs up|stops listening|only connects)"),
    re.compile(r"(?P<what>the server hangs up) on (?P<who>\w+)"),
)


class BadTranscript(Exception):
    """A transcript that nobody can play; says where and why."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who takes part.

    @ivar client: the program he uses, one of L{tests.support.clients.CLIENTS}.
    @ivar line_end: what ends the lines of heads that it sends.
    @ivar address: where it calls from and listens.
    """

    name: str
    client: str
    line_end: str
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Scene:
    """Who speaks from here on, and over which connection; or that somebody goes.

    @ivar what: the words of the scene, such as C{"new connection"}.
    @ivar scheme: requests are signed in by it, without showing how.
    """

    line: int
    who: str
    what: str
    label: str = ""
    scheme: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer, said or expected.

    @ivar head: its lines up to the empty one, with places for values still in them.
    @ivar body: likewise, with the line ends that are written out.
    """

    line: int
    mark: str
    head: tuple[str, ...]
    body: str


@dataclass(frozen=True, slots=True)
class Understood:
    """What a client makes of what it was sent last, one thing in each of C{texts}."""

    line: int
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reckon:
    """A value that a client works out: kept as C{name}, or compared with C{value}."""

    line: int
    name: str
    value: str
    words: tuple[str, ...]


Step = Scene | Message | Understood | Reckon


@dataclass(slots=True)
class Transcript:
    """A conversation.

    @ivar titles: of its parts, by the line where each begins.
    """

    name: str
    profile: str = ""
    schemes: str = ""
    users: tuple[str, ...] = ()
    cast: dict[str, Actor] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    titles: dict[int, str] = field(default_factory=dict)

    def part(self, line: int) -> str:
        """The title of the part that C{line} is in."""
        return next((title for at, title in reversed(self.titles.items()) if at <= line), "")

    def where(self, line: int) -> str:
        """For a complaint: the file, the line and the part."""
        part = self.part(line)
        return f"{self.name}:{line}" + (f" ({part})" if part else "")


def read_transcript(path: Path) -> Transcript:
    """The transcript in a file.

    @raise BadTranscript: it is none.
    """
    return parse_transcript(path.read_text("utf-8"), path.name)


def parse_transcript(text: str, name: str) -> Transcript:
    """The transcript that C{text} writes down.

    @raise BadTranscript: it is none.
    """
    transcript = Transcript(name)
    lines = _Lines(transcript, text)
    _parse_settings(transcript, lines)
    while (line := lines.next()) is not None:
        if line.startswith("["):
            transcript.steps.append(_scene(transcript, lines, line))
        elif line[:2] in MARKS:
            transcript.steps.append(_message(lines, line))
        elif line.startswith("~~"):
            transcript.steps.append(_understood(lines, line))
        elif line.startswith("!"):
            transcript.steps.append(_reckon(lines, line))
        else:
            raise lines.bad(f"what is {line!r}?")
    return transcript


class _Lines:
    """The lines of a transcript that mean something, one after the other."""

    def __init__(self, transcript: Transcript, text: str) -> None:
        self._transcript = transcript
        self._lines = text.split("\n")
        self.number = 0

    def next(self) -> str | None:
        """The next line that is neither empty nor a comment; titles are noted on the way."""
        while self.number < len(self._lines):
            line = self._lines[self.number]
            self.number += 1
            if line.startswith("## "):
                self._transcript.titles[self.number] = line[3:].strip()
            elif line.strip() and not line.startswith("#"):
                return line
        return None

    def more(self, mark: str) -> Iterator[str]:
        """What the lines say that follow at once and have the same mark."""
        while self.number < len(self._lines) and self._lines[self.number].startswith(mark):
            self.number += 1
            yield self.content(self._lines[self.number - 1], mark)

    def content(self, line: str, mark: str) -> str:
        """What C{line} says after its mark.

        @raise BadTranscript: the mark is not followed by a space.
        """
        if line == mark:
            return ""
        if not line.startswith(f"{mark} "):
            raise self.bad(f"a space is missing after {mark}")
        return line[len(mark) + 1 :]

    def back(self) -> None:
        """Let L{next} return the same line again."""
        self.number -= 1

    def bad(self, why: str) -> BadTranscript:
        """A complaint about the line that was read last."""
        return BadTranscript(f"{self._transcript.name}:{self.number}: {why}")


def _parse_settings(transcript: Transcript, lines: _Lines) -> None:
    """Read the part before the first scene: C{name: value} lines."""
    while (line := lines.next()) is not None:
        name, colon, value = (part.strip() for part in line.partition(":"))
        if line.startswith(("[", "!", *MARKS)) or not colon:
            lines.back()
            break
        if name == "profile" and value in _PROFILES:
            transcript.profile = value
        elif name == "schemes" and value:
            transcript.schemes = value
        elif name == "users" and value:
            transcript.users = tuple(user.strip() for user in value.split(","))
        elif name in ("profile", "schemes", "users"):
            raise lines.bad(f"{name} cannot be {value!r}")
        else:
            transcript.cast[name] = _actor(lines, name, value)
    if not transcript.profile or not transcript.users or not transcript.cast:
        raise lines.bad("it must say profile and users, and who takes part, before it begins")


def _actor(lines: _Lines, name: str, value: str) -> Actor:
    """The value of a line such as C{petra: miranda, LF, at 127.0.0.1}.

    @raise BadTranscript: it is something else.
    """
    client, *rest = (part.strip() for part in value.split(","))
    if not client or not rest or rest[0] not in _LINE_ENDS or len(rest) > 2:
        raise lines.bad(f"{name} must be a client, and LF or CRLF")
    if len(rest) == 1:
        return Actor(name, client, _LINE_ENDS[rest[0]])
    address = rest[1].removeprefix("at ")
    if not address.startswith("127."):
        raise lines.bad(f"{name} must be on loopback, not at {address}")
    return Actor(name, client, _LINE_ENDS[rest[0]], address)


def _scene(transcript: Transcript, lines: _Lines, line: str) -> Scene:
    """C{[petra, new connection]} and its like.

    @raise BadTranscript: it is none of them, or its actor is nobody.
    """
    words = line.strip()
    for pattern in _SCENES:
        found = pattern.fullmatch(words[1:-1]) if words.endswith("]") else None
        if found is None:
            continue
        parts = found.groupdict()
        if parts["who"] not in transcript.cast:
            raise lines.bad(f"nobody is called {parts['who']}")
        return Scene(
            lines.number, parts["who"], parts["what"], parts.get("label") or "", parts.get("scheme") or ""
        )
    raise lines.bad(f"there is no such scene: {words}")


def _message(lines: _Lines, line: str) -> Message:
    """All the lines with the same mark.

    @raise BadTranscript: they have no empty line after the head, or are no text.
    """
    number, mark = lines.number, line[:2]
    contents = [lines.content(line, mark), *lines.more(mark)]
    if "" not in contents:
        raise lines.bad(f"the head has no end: a line that says only {mark}")
    end = contents.index("")
    if end == 0:
        raise lines.bad("it has no head")
    body = "".join([_unescape(lines, part) for part in contents[end + 1 :]])
    for content in (*contents[:end], body):
        for place in _PLACE.finditer(content):
            if place[2] and place[2] not in WILDCARDS:
                raise lines.bad(f"nothing is known of {place[0]}")
    return Message(number, mark, tuple(contents[:end]), body)


def _unescape(lines: _Lines, text: str) -> str:
    """Text of a body, with its line ends as they are written out.

    @raise BadTranscript: a backslash stands before something else.
    """
    if not all(mark[1] in _ESCAPED for mark in _ESCAPE.finditer(text)):
        raise lines.bad(r"a backslash in a body stands for \n, \r or \\ only")
    return _ESCAPE.sub(lambda mark: _ESCAPED[mark[1]], text)


def _understood(lines: _Lines, line: str) -> Understood:
    """All the C{~~} lines that follow each other."""
    number = lines.number
    return Understood(number, (lines.content(line, "~~"), *lines.more("~~")))


def _reckon(lines: _Lines, line: str) -> Reckon:
    """C{! name = words} or C{! "value" = words}.

    @raise BadTranscript: it is neither.
    """
    found = re.fullmatch(r'! *(?:([a-z0-9-]+)|"([^"]*)") = (\S.*)', line.rstrip())
    if found is None:
        raise lines.bad('it must be ! name = words, or ! "value" = words')
    return Reckon(lines.number, found[1] or "", found[2] or "", tuple(found[3].split()))


def fill(text: str, values: dict[str, str]) -> str:
    """C{text} with the values in their places.

    @raise KeyError: one is not known.
    """
    return _PLACE.sub(lambda place: values[place[1]], text)


def pattern_of(text: str, values: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The regular expression that C{text} expects, and which group of it is which new value.

    @raise KeyError: a place says neither a known value nor what may stand there.
    """
    parts: list[str] = []
    groups: dict[str, str] = {}
    end = 0
    for place in _PLACE.finditer(text):
        parts.append(re.escape(text[end : place.start()]))
        end = place.end()
        name, kind = place[1], place[2]
        if name in values:
            parts.append(re.escape(values[name]))
        elif name == "length":
            parts.append("[0-9]+")
        elif not kind:
            raise KeyError(name)
        elif not name:
            parts.append(WILDCARDS[kind])
        elif name in groups.values():
            group = next(group for group, known in groups.items() if known == name)
            parts.append(f"(?P={group})")
        else:
            group = f"g{len(groups)}"
            groups[group] = name
            parts.append(f"(?P<{group}>{WILDCARDS[kind]})")
    return "".join([*parts, re.escape(text[end:])]), groups
