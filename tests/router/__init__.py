"""Tests of C{rvpfarm.router}."""
