"""Every verb of C{rvpfarm} keeps to the same rules, whoever added it."""

from __future__ import annotations

import click
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.admin.catalogue import OPERATIONS
from rvpfarm.admin.command import rvpfarm
from rvpfarm.admin.operations import Effect
from rvpfarm.admin.verbs import Noun, Verb
from tests.admin.test_operations import leaves

#: Verbs that read and are no operations.
READING = {"api"}

#: Nouns whose verbs may take away what C{--yes} alone insists on, and what that option does there.
INSISTING = {"domain mail remove", "router remove"}


def options_of(verb: click.Command) -> set[str]:
    """The options of a verb, with their hyphens."""
    return {name for one in verb.params if isinstance(one, click.Option) for name in one.opts}


def offers_json(verb: click.Command) -> bool:
    """Can it print JSON?"""
    formats = [one.type for one in verb.params if "--format" in one.opts]
    return "--json" in options_of(verb) or any(
        isinstance(one, click.Choice) and "json" in one.choices for one in formats
    )


class UniformityTests(SynchronousTestCase):
    """What an administrator learned of one verb is true of the others."""

    def setUp(self) -> None:
        """Every verb, and what each does."""
        self.verbs = dict(leaves(rvpfarm))
        self.effects = {one.command: one.effect for one in OPERATIONS.values()}

    def test_reading(self) -> None:
        """What reads prints JSON on request, and its help names the keys."""
        reading = {name for name, effect in self.effects.items() if effect is Effect.READS} | READING
        for name in sorted(reading):
            verb = self.verbs[name]
            self.assertTrue(offers_json(verb), name)
            self.assertRegex(verb.help or "", r"With (--edges )?--(format )?json", name)

    def test_destroying(self) -> None:
        """What takes away can be rehearsed, and asks unless told not to."""
        destroying = {name for name, effect in self.effects.items() if effect is Effect.DESTROYS}
        for name in sorted(destroying):
            options = options_of(self.verbs[name])
            self.assertLessEqual({"--dry-run", "--yes"}, options, name)
            asks = any(one.help == "Do not ask." for one in self.verbs[name].params if "--yes" in one.opts)
            self.assertEqual(asks, name not in INSISTING, name)

    def test_options_mean_the_same(self) -> None:
        """An option that many verbs have is a flag everywhere, and says the same."""
        words = {
            "--dry-run": {"Show what would be done, and do nothing."},
            "--json": {"Print JSON for programs instead of text."},
        }
        for name, verb in self.verbs.items():
            for one in verb.params:
                for option in set(one.opts) & words.keys():
                    assert isinstance(one, click.Option)
                    self.assertTrue(one.is_flag, f"{name} {option}")
                    self.assertIn(one.help, words[option], f"{name} {option}")

    def test_help(self) -> None:
        """Every noun, verb and option has help that is a sentence."""
        waiting: list[tuple[str, click.Command]] = [("rvpfarm", rvpfarm)]
        while waiting:
            name, one = waiting.pop()
            self.assertIsInstance(one, Noun | Verb, name)
            first = (one.help or "").partition("\n\n")[0].strip()
            self.assertTrue(first[:1].isupper() and first.endswith("."), f"{name}: {first}")
            for parameter in one.params:
                if isinstance(parameter, click.Option):
                    said = (parameter.help or "").strip()
                    self.assertTrue(said[:1].isupper() or said[:1] == '"', f"{name} {parameter.opts}")
                    self.assertRegex(said, r"[.\]]$", f"{name} {parameter.opts}")
            if isinstance(one, click.Group):
                waiting += [(f"{name} {word}", below) for word, below in one.commands.items()]

    def test_status(self) -> None:
        """Wrong usage is 2, and a directory that is away 1 with one sentence, whichever verb it is."""
        for name, verb in self.verbs.items():
            result = CliRunner().invoke(rvpfarm, [*name.split(), "--no-such-option"])
            self.assertEqual(result.exit_code, 2, name)
            needed = [one for one in verb.params if isinstance(one, click.Argument) and one.required]
            if needed or name in ("api", "init", "completion", "explain", "preflight"):
                continue
            result = CliRunner().invoke(
                rvpfarm, ["--directory", "sqlite:////nowhere/d.sqlite", *name.split()]
            )
            self.assertIn(result.exit_code, (1, 2), name)
            self.assertNotIn("Traceback", result.output, name)
            if result.exit_code == 1 and "Aborted!" not in result.stderr:  # some ask before they look
                self.assertTrue(result.stderr.startswith(f"rvpfarm: {name}: "), result.stderr)
                self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
