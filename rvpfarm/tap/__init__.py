"""Options in, service tree out: the only place that picks implementations."""
