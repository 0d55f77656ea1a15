"""Tests of C{rvpfarm.home}."""
