"""Finds what is wrong with a farm: a check for each known fault, with what to do about it."""
