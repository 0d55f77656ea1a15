"""Presence and instant messaging over RVP, as a farm of routers and homes."""
