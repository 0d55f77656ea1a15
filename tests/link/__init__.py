"""Tests of C{rvpfarm.link}."""
