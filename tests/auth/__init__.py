"""Tests of C{rvpfarm.auth}."""
