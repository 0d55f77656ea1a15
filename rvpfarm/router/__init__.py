"""Keeps nothing: any router can answer any call."""
