"""Tests of who exists and where."""
