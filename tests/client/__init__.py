"""Tests of C{rvpfarm.client}."""
