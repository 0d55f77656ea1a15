"""Who exists and where."""
