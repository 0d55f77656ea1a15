"""Tests: each mirrors a module of rvpfarm."""
