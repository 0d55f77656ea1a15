"""The transcripts, each played against a home of its own that has just been set up."""

from __future__ import annotations

from pathlib import Path
from unittest import TestCase

from tests.support.farmhouse import PASSWORDS, Farmhouse
from tests.support.stage import Stage
from tests.support.transcript import read_transcript

HERE = Path(__file__).parent


class TranscriptTests(TestCase):
    """A home says to each client what is written down, and what that client can digest."""

    def play(self, name: str) -> None:
        """Play one, to its end."""
        transcript = read_transcript(HERE / f"{name}.rvp")
        policies = {"O": {"authentication": "off"}, "S": {"authentication": "required"}}[transcript.profile]
        if transcript.schemes:
            policies["schemes"] = transcript.schemes
        house = Farmhouse(users=dict.fromkeys(transcript.users, "hs1"), policies=policies)
        self.addCleanup(house.close)
        stage = Stage(transcript, house.home.host, house.home.port, PASSWORDS)
        self.addCleanup(stage.close)
        stage.play()

    def test_all_are_played(self) -> None:
        """No transcript lies about that nobody plays."""
        names = {path.stem.replace("-", "_") for path in HERE.glob("*.rvp")}
        tests = {name.removeprefix("test_") for name in dir(self) if name.startswith("test_")}
        self.assertEqual(names - tests, set())

    def test_win(self) -> None:
        """Windows Messenger, as far as it is known, with NTLM."""
        self.play("win")

    def test_miranda(self) -> None:
        """Miranda IM, with NTLM in each transaction."""
        self.play("miranda")

    def test_miranda_digest(self) -> None:
        """Miranda IM, with Digest."""
        self.play("miranda-digest")

    def test_net_rvp(self) -> None:
        """Net::RVP, with NTLMv1 once for its connection."""
        self.play("net-rvp")

    def test_librvp(self) -> None:
        """pidgin's librvp, on assertions."""
        self.play("librvp")

    def test_librvp_digest(self) -> None:
        """pidgin's librvp, with Digest."""
        self.play("librvp-digest")
