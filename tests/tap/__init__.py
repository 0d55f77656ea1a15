"""Tests of L{rvpfarm.tap}."""
