"""Real daemons on loopback, driven from outside as a stranger would."""
