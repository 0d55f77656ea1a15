"""Tests of what RVP looks like on paper."""
