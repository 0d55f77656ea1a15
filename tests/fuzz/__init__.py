"""Fuzzing: what arrives from strangers is read or refused, whatever it is, in bounded time and memory.

Each module named in L{tests.fuzz.registry} has a C{fuzz_one(data)} that asserts what one reader promises.
C{python -m tests.fuzz} drives them with atheris or with the engine of L{tests.fuzz.mutation};
C{test_fuzz.py} gives each a few hundred inputs in every run of the suite.
"""
