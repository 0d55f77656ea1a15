"""What load programs are given, and what they say."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from rvpfarm.protocol.calls import Limits
from rvpfarm.web.reader import RequestReader
from tests.bench import load
from tests.bench.serving import Served, end, family, free_range
from tests.support.folders import folder

WRK = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 64 connections
Requests/sec:   9000.00
{"ops": 9000, "seconds": 1.000100, "p50_us": 300, "p99_us": 5500, "failures": 2}
"""


class ReportTests(SynchronousTestCase):
    """The last line of a load program becomes a sample."""

    def test_wrk(self) -> None:
        """wrk's own words are passed over; what our script printed counts."""
        sample = load.parse_wrk(WRK, 0.09)
        self.assertEqual((sample.ops, sample.p50_us, sample.p99_us, sample.failures), (9000, 300, 5500, 2))
        self.assertAlmostEqual(sample.cpu_per_thousand, 10.0)

    def test_wrk_says_nothing(self) -> None:
        """Without that line there is no sample."""
        self.assertRaises(RuntimeError, load.parse_wrk, "unable to connect", 0.0)

    def test_program(self) -> None:
        """Refusals count as failures; an operation may be what was told, not what caused it."""
        line = '{"ops": 10, "seconds": 2, "p50_us": 1, "p99_us": 2, "failures": 1, "refusals": 2, "told": 2000, "late": 4}'
        sample = load.parse_report(line, 1.0)
        self.assertEqual((sample.ops, sample.failures, sample.late), (10, 3, 4))
        self.assertEqual(load.parse_report(line, 1.0, told=True).ops, 2000)

    def test_nothing_done(self) -> None:
        """No operation at all is no sample, and neither is half a line."""
        line = '{"ops": 0, "seconds": 2, "p50_us": 0, "p99_us": 0, "failures": 9}'
        self.assertRaises(RuntimeError, load.parse_report, line, 1.0)
        self.assertRaises(RuntimeError, load.parse_report, line[:20], 1.0)


class RequestTests(SynchronousTestCase):
    """The requests are such as our strict reader takes."""

    def test_notify(self) -> None:
        """Its body has just as many octets as asked, whoever it is for."""
        for number in (0, 7, 1999):
            (call,) = RequestReader(Limits()).feed(load.notify(number))
            self.assertEqual((call.target, len(call.body)), (b"/instmsg/aliases/u%d" % number, 1024))

    def test_sign_in(self) -> None:
        """It comes from a client that is referred."""
        (call,) = RequestReader(Limits()).feed(load.sign_in(3))
        self.assertEqual(call.headers.get(b"user-agent"), b"msmsgs/4.6.0.83")

    def test_file(self) -> None:
        """Each request is preceded by its length, so that a body may hold anything."""
        path = load.write_requests(folder(self) / "requests", [b"a\nb", b"c"])
        self.assertEqual(path.read_bytes(), b"3\na\nb1\nc")


class ServingTests(SynchronousTestCase):
    """The processes of a server."""

    def test_family(self) -> None:
        """The CPU of a server is that of its children too."""
        self.assertIn(os.getpid(), family([os.getppid()]))
        self.assertGreater(Served("", (os.getpid(),)).cpu_seconds(), 0)

    def test_ended(self) -> None:
        """A process is gone when it was ended, and ending it again does no harm."""
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.addCleanup(process.communicate)
        end(process)
        self.assertIsNotNone(process.poll())
        end(process)

    def test_free_range(self) -> None:
        """Ports in a row, none of which the kernel hands out by itself."""
        self.assertLess(free_range(50) + 50, 32768)
