"""The library that other programs import, and the C{rvp} command."""
