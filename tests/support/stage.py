"""Plays a transcript: says what its clients say, and sees that what comes back is what is written.

Real sockets and nothing of the code under test.  What is not as written is a L{Mismatch}, which shows the
difference in the words of the transcript.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import ndiff

from tests.support.clients.common import Died, method_of, says
from tests.support.ntlm import NtlmClient
from tests.support.people import Person
from tests.support.processes import PATIENCE_SECONDS
from tests.support.reckoning import digest_response, net_rvp_type3
from tests.support.transcript import (
    ANSWER,
    CALL_BACK,
    REQUEST,
    BadTranscript,
    Message,
    Reckon,
    Scene,
    Step,
    Transcript,
    Understood,
    fill,
    pattern_of,
)
from tests.support.wire import Wire


class Mismatch(AssertionError):
    """The conversation did not go as it is written."""


class Stage:
    """Where one transcript is played once, against a home.

    @ivar values: what has been found out so far, by name.
    """

    def __init__(
        self,
        transcript: Transcript,
        host: str,
        port: int,
        passwords: Mapping[str, str],
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """
        @param host: of the home; C{port} likewise.
        @param passwords: of the users, by alias.
        @param patience: how long anything expected may take, in seconds.
        """
        self._transcript, self._passwords, self._patience = transcript, passwords, patience
        self.values: dict[str, str] = {}
        self._people = {
            name: Person(actor, lambda actor=actor: Wire(host, port, source=actor.address))  # type: ignore[misc]
            for name, actor in transcript.cast.items()
        }
        for name, person in self._people.items():
            self.values[name] = person.ear.where
        self._present: Person | None = None
        self._scene: Scene | None = None
        self._noticed: list[str] = []
        self._ntlm: NtlmClient | None = None

    def close(self) -> None:
        """Hang up everywhere."""
        for person in self._people.values():
            person.close()

    def play(self) -> None:
        """Play it to its end.

        @raise Mismatch: it went otherwise.
        @raise BadTranscript: it cannot be played.
        """
        for step in self._transcript.steps:
            try:
                self._step(step)
            except Died as death:
                raise self._wrong(step.line, f"dies of it: {death}") from death
            except (AssertionError, OSError, ValueError) as problem:
                if isinstance(problem, Mismatch):
                    raise
                raise self._wrong(step.line, str(problem) or type(problem).__name__) from problem
            except KeyError as problem:
                raise BadTranscript(
                    f"{self._transcript.where(step.line)}: nothing is known of {problem}"
                ) from problem
        if self.unheard():
            raise self._called_more()

    def unheard(self) -> int:
        """How many calls to anybody's call-back have arrived that no step has dealt with yet."""
        return sum(person.ear.heard.qsize() for person in self._people.values())

    def _called_more(self) -> Mismatch:
        """A complaint about calls that are not written down."""
        person = next(person for person in self._people.values() if person.ear.heard.qsize())
        more = person.ear.heard.qsize()
        _, arrived = person.ear.heard.get()
        text = "\n".join(_lines(arrived.raw, CALL_BACK))
        return Mismatch(
            f"{self._transcript.name}: {person.actor.name} was called {more} more times, first:\n{text}"
        )

    def _step(self, step: Step) -> None:
        if isinstance(step, Scene):
            self._change(step)
        elif isinstance(step, Understood):
            self._compare_noticed(step)
        elif isinstance(step, Reckon):
            self._reckon(step)
        elif step.mark == REQUEST:
            self._say(step)
        elif step.mark == ANSWER:
            self._expect(step, self._person.wire.read().raw)
        elif step.mark == CALL_BACK:
            self._listen(step)
        else:
            self._reply(step)

    # scenes

    @property
    def _person(self) -> Person:
        """Who is on stage.

        @raise BadTranscript: nobody, yet.
        """
        if self._present is None:
            raise BadTranscript(f"{self._transcript.name}: it begins without a scene")
        return self._present

    @property
    def _who(self) -> str:
        return "nobody" if self._present is None else self._present.actor.name

    def _change(self, scene: Scene) -> None:
        """Bring somebody on stage, or see him go."""
        person = self._people[scene.who]
        if scene.what == "only connects":
            person.connect().close()
            return
        if scene.what == "stops listening":
            person.ear.close()
            return
        if scene.what == "hangs up":
            person.hang_up()
            return
        if scene.what == "the server hangs up":
            if not person.is_left(self._patience):
                raise Mismatch(f"{self._transcript.where(scene.line)}: the server goes on with {scene.who}")
            return
        self._present, self._scene = person, scene
        if scene.what == "new connection":
            person.open(scene.label)
        elif scene.what == "connection":
            person.take_up(scene.label)
        elif scene.what == "same connection":
            person.take_up()
        else:
            person.attend()

    # what the clients say

    def _say(self, message: Message) -> None:
        """Send a request, signed in if the scene says so."""
        if self._scene is not None and self._scene.scheme == "Digest":
            self._say_by_digest(message)
        elif self._scene is not None and self._scene.scheme == "NTLM":
            self._say_by_ntlm(message)
        else:
            self._send(message)

    def _send(self, message: Message, *more: str) -> None:
        """Send a request as it is written.

        @param more: further header lines, after all others.
        """
        self._person.ask(self._render(message, more))

    @property
    def _user(self) -> str:
        """The alias of whom the request was from."""
        return says(self._person.asked, "RVP-From-Principal").rpartition("/")[2]

    def _say_by_digest(self, message: Message) -> None:
        """Send a request; when it is answered 401, send it again with Digest credentials."""
        self._send(message)
        answer = self._person.wire.read()
        line = next((line for line in answer.every("WWW-Authenticate") if line.startswith("Digest")), "")
        found = dict(re.findall(r'(\w+)="([^"]*)"', line))
        if answer.status != 401 or not found:
            raise self._wrong(message.line, f"this is no Digest challenge:\n{answer.raw.decode()}")
        asked = self._person.asked
        method, uri = method_of(asked), asked.split(b" ", 2)[1].decode()
        user, nonce, cnonce = self._user, found["nonce"], "0a4f113b"
        response = digest_response(
            user, found["realm"], self._passwords[user], method, uri, nonce, "00000001", cnonce
        )
        self._send(
            message,
            f'Authorization: Digest username="{user}", realm="{found["realm"]}", nonce="{nonce}", '
            f'uri="{uri}", qop=auth, nc=00000001, cnonce="{cnonce}", response="{response}"',
        )

    def _say_by_ntlm(self, message: Message) -> None:
        """Send a request three times, as a client does that signs in each of its transactions."""
        self._send(message)
        client = NtlmClient(f"FABRIK\\{self._user}", self._passwords[self._user])
        self._challenge(message, "greets with NTLM")
        self._send(message, f"Authorization: {client.step()}")
        line = self._challenge(message, "answers the NTLM challenge")
        self._send(message, f"Authorization: {client.step(line)}")

    def _challenge(self, message: Message, wanted: str) -> str:
        """The line of the NTLM challenge that comes now, and that the client goes on with as C{wanted}."""
        answer = self._person.wire.read()
        noticed = self._person.client.answered(self._person.asked, answer.raw)
        if noticed != [wanted]:
            raise self._wrong(message.line, f"{', '.join(noticed)}:\n{answer.raw.decode()}")
        return answer.every("WWW-Authenticate")[0]

    def _reply(self, message: Message) -> None:
        """Answer the call-back."""
        self._person.reply(self._render(message, ()))

    def _render(self, message: Message, more: Iterable[str]) -> bytes:
        """What is sent: the head's lines with the actor's line end, and the body as it is."""
        body = fill(message.body, self.values)
        values = {**self.values, "length": str(len(body.encode()))}
        end = self._person.actor.line_end
        head = [fill(line, values) for line in message.head]
        return (end.join([*head, *more, "", ""]) + body).encode()

    # what comes back

    def _listen(self, message: Message) -> None:
        """Wait for a call-back."""
        person = self._person
        arrived = person.listen(self._patience)
        if arrived is None:
            raise self._wrong(message.line, "nobody calls")
        self._expect(message, arrived.raw)

    def _expect(self, message: Message, raw: bytes) -> None:
        """See that what arrived is as written, and let the client read it."""
        wanted = "\r\n".join([*message.head, "", ""]) + message.body
        pattern, groups = pattern_of(wanted, self.values)
        found = re.fullmatch(pattern, raw.decode("utf-8", "surrogateescape"), re.DOTALL)
        if found is None:
            raise self._wrong(message.line, f"this is not what is written:\n{self._difference(message, raw)}")
        self.values.update({name: found[group] for group, name in groups.items()})
        client = self._person.client
        if message.mark == ANSWER:
            self._noticed = client.answered(self._person.asked, raw)
        else:
            self._noticed = client.notified(raw)

    def _difference(self, message: Message, raw: bytes) -> str:
        """Written against arrived, line by line; wildcards that fit are shown as what they stand for."""
        wanted = ("\r\n".join([*message.head, "", ""]) + message.body).encode()
        arrived = _lines(raw, message.mark)
        written = []
        for line in _lines(wanted, message.mark):
            pattern, _ = pattern_of(line, self.values)
            written.append(next((other for other in arrived if re.fullmatch(pattern, other)), line))
        return "\n".join(line for line in ndiff(written, arrived) if not line.startswith("?"))

    def _compare_noticed(self, step: Understood) -> None:
        """See that the client understood what it should."""
        wanted = [fill(text, self.values) for text in step.texts]
        if wanted != self._noticed:
            lines = [line for line in ndiff(wanted, self._noticed) if not line.startswith("?")]
            raise self._wrong(step.line, "understands something else:\n" + "\n".join(lines))

    # what the clients work out

    def _reckon(self, step: Reckon) -> None:
        """Work a value out, and keep it or compare it."""
        name, *words = (fill(word, self.values) for word in step.words)
        if name not in _SKILLS or len(words) != _SKILLS[name]:
            raise BadTranscript(f"{self._transcript.where(step.line)}: nobody can {' '.join(step.words)}")
        value = self._work_out(name, words)
        if step.name:
            self.values[step.name] = value
        elif value != step.value:
            raise self._wrong(step.line, f"it is {value}")

    def _work_out(self, name: str, words: list[str]) -> str:
        """One of L{_SKILLS}."""
        if name == "digest":
            user, realm, method, uri, nonce, nc, cnonce = words
            password = self._passwords[_alias(user)]
            return digest_response(user, realm, password, method, uri, nonce, nc, cnonce)
        if name == "net-rvp-type3":
            user, challenge = words
            return net_rvp_type3(challenge, _alias(user), self._passwords[_alias(user)])
        if name == "ntlm-type1":
            self._ntlm = NtlmClient(words[0], self._passwords[_alias(words[0])])
            return self._ntlm.step().removeprefix("NTLM ")
        assert self._ntlm is not None, "there was no ntlm-type1"
        return self._ntlm.step(f"NTLM {words[0]}").removeprefix("NTLM ")

    def _wrong(self, line: int, what: str) -> Mismatch:
        """A complaint about the step at C{line}."""
        return Mismatch(f"{self._transcript.where(line)}, {self._who}: {what}")


#: What can be worked out, and from how many words.
_SKILLS = {"digest": 7, "net-rvp-type3": 2, "ntlm-type1": 1, "ntlm-type3": 1}


def _alias(user: str) -> str:
    """The alias in a user name, in whatever form it comes."""
    return re.split(r"[\\/]", user)[-1].partition("@")[0]


def _lines(raw: bytes, mark: str) -> list[str]:
    """What arrived, in the notation of a transcript, a tag to a line."""
    head, end, body = raw.partition(b"\r\n\r\n")
    plain = b"\n" not in head.replace(b"\r\n", b"")
    if not end or not plain:
        head, body = raw, b""
    text = head.decode("utf-8", "replace")
    lines = text.split("\r\n") if plain and end else _written_out(text)
    lines += ["", *_written_out(body.decode("utf-8", "replace"))] if end and plain else []
    return [f"{mark} {line}".rstrip() if line else mark for line in lines]


def _written_out(text: str) -> list[str]:
    """Text with its line ends written out, split after them and between tags."""
    text = text.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n\n")
    return [piece for line in text.split("\n") for piece in re.split(r"(?<=>)(?=<)", line) if piece]
