"""Tests of C{rvpfarm.web}."""
