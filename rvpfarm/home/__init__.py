"""Keeps everything about the nodes homed here."""
