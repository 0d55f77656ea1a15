"""Tests of C{rvpfarm.discovery}."""
