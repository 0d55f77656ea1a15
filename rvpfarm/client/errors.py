"""What can go wrong for a person, each in one sentence."""

from __future__ import annotations


class NotDone(Exception):
    """What was asked for did not happen; the text is a sentence for a person."""


class Refused(NotDone):
    """A server said no.

    @ivar status: with which status.
    """

    def __init__(self, status: int, sentence: str) -> None:
        """
        @param sentence: why, for a person.
        """
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class WrongPassword(Refused):
    """401: the server does not believe who we are."""


class SendFailed(Refused):
    """A message was not acknowledged."""


#: What a status means to whoever sent a message (protocol notes 6.3).
_SENDING = {
    403: "{address} does not accept messages from you",
    404: "there is no {address}",
    412: "{address} cannot be reached: nobody is logged in there now",
    413: "the message to {address} is too long",
    500: "{address} has left the conversation; the message was not taken",
    503: "the message to {address} was not taken: the server is busy, or the home server is down; try later",
    504: "{address} did not acknowledge the message in time; it may or may not have arrived",
}

#: What a status means to whoever asked for something else.
_ASKING = {
    403: "{address} does not let you {what}",
    404: "the server knows no {address}",
    412: "the server does not have that subscription of {address} any more",
    503: "cannot {what}: the server is busy, or the home server of {address} is down; try later",
    504: "cannot {what}: the home server of {address} did not answer in time",
}


def send_failure(status: int, address: str) -> SendFailed:
    """Why a message to C{address} was not delivered."""
    sentence = _SENDING.get(status, "the server refused the message to {address} with status {status}")
    return SendFailed(status, sentence.format(address=address, status=status))


def refusal(status: int, address: str, what: str) -> Refused:
    """Why C{what}, such as "see its state", was not possible with C{address}."""
    sentence = _ASKING.get(status, "cannot {what}: the server of {address} answers with status {status}")
    return Refused(status, sentence.format(address=address, what=what, status=status))
