"""Settings of clients as files for Windows: only what a client heeds, in files that can be read."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin.checks import Refused
from rvpfarm.admin.policypack import SETTINGS, choose, parse_choice, render_adml, render_admx, render_reg
from tests.admin.test_command import CommandCase

NS = "{http://www.microsoft.com/GroupPolicy/PolicyDefinitions}"


class PackTests(SynchronousTestCase):
    """L{rvpfarm.admin.policypack}"""

    def test_usual(self) -> None:
        """Without a word the pack hides ads and upgrades, and leaves only this service, with its domain."""
        chosen = {one.setting.name: one.value for one in choose((), "FABRIK")}
        self.assertEqual(
            chosen,
            {"DisableCrossPromo": 1, "DisableUpdates": 1, "ExchangeConn": 2, "DefaultNTLMDomain": "FABRIK"},
        )
        self.assertNotIn("DefaultNTLMDomain", [one.setting.name for one in choose(())])

    def test_otherwise(self) -> None:
        """Another value, in any letter case; an empty one leaves the setting out."""
        chosen = {
            one.setting.name: one.value
            for one in choose(["exchangeconn=1", "DisableUpdates=", "PropertyTimeout=600"])
        }
        self.assertEqual(chosen, {"DisableCrossPromo": 1, "ExchangeConn": 1, "PropertyTimeout": 600})

    def test_refused(self) -> None:
        """A name or a value that no client heeds is not written (D31)."""
        for text in (
            "DisableUpdate=1",
            "DisableUpdates=0",
            "DisableVideo=2",
            "ExchangeConn=3",
            "ExchangeConn=two",
            "PropertyTimeout=1",
            "IMWarning",
            "IMWarning=a\nb",
            "GCLocation=x",
        ):
            with self.subTest(text=text), self.assertRaises(Refused):
                parse_choice(text)

    def test_reg(self) -> None:
        """The registry file is UTF-16 with a mark, its numbers are hexadecimal, and its texts are quoted."""
        data = render_reg(choose(['IMWarning=Say "no"\\ thanks \u2615', "PropertyTimeout=600"], "FABRIK"))
        text = data.decode("utf-16")
        self.assertTrue(text.startswith("Windows Registry Editor Version 5.00\r\n\r\n"))
        self.assertIn('"IMWarning"="Say \\"no\\"\\\\ thanks \u2615"\r\n', text)
        self.assertIn('"PropertyTimeout"=dword:00000258\r\n', text)
        keys = re.findall(r"^\[(.+)\]\r$", text, re.MULTILINE)
        self.assertEqual(
            keys,
            [
                r"HKEY_LOCAL_MACHINE\Software\Microsoft\MessengerService\Policies",
                r"HKEY_CURRENT_USER\Software\Microsoft\Exchange\Messenger\Profiles",
            ],
        )

    def test_switches(self) -> None:
        """What concerns a conversation is for this service alone; what concerns the program is not."""
        text = render_reg(choose(["DisableVideo=1", "PreventAutoRun=1"])).decode("utf-16")
        self.assertIn(r"Messenger\Client\{83D4679E-B6D7-11D2-BF36-00C04FB90A03}]", text)
        self.assertIn(r"Messenger\Client]", text)

    def test_template(self) -> None:
        """Every setting is in the template, and every word and form that it refers to is there."""
        admx, adml = (ElementTree.fromstring(made()) for made in (render_admx, render_adml))  # noqa: S314
        self.assertEqual([one.get("name") for one in admx.iter(f"{NS}policy")], list(SETTINGS))
        strings = {one.get("id") for one in adml.iter(f"{NS}string")}
        forms = {one.get("id") for one in adml.iter(f"{NS}presentation")}
        text = render_admx().decode()
        self.assertEqual(set(re.findall(r"\$\(string\.(\w+)\)", text)), strings)
        self.assertEqual(set(re.findall(r"\$\(presentation\.(\w+)\)", text)), forms)
        for form in adml.iter(f"{NS}presentation"):
            (box,) = form
            (policy,) = (one for one in admx.iter(f"{NS}policy") if one.get("name") == form.get("id"))
            elements = policy.find(f"{NS}elements")
            assert elements is not None
            self.assertEqual([one.get("id") for one in elements], [box.get("refId")])


class CommandTests(CommandCase):
    """C{rvpfarm policy pack}"""

    def test_written(self) -> None:
        """The files are written, and what is set is said."""
        self.make_farm()
        out = self.folder / "pack"
        shown = self.run_it("policy", "pack", "--out", str(out), "--set", "IMWarning=Recorded").stdout
        self.assertIn("IMWarning=Recorded", shown)
        self.assertEqual(
            sorted(str(path.relative_to(out)) for path in out.rglob("*.*")),
            ["en-US/rvpfarm.adml", "messenger.reg", "rvpfarm.admx"],
        )
        self.run_it("policy", "pack", "--out", str(out), "--set", "x=1", status=1)
