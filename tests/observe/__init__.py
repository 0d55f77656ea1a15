"""Tests of L{rvpfarm.observe}."""
