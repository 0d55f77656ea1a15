"""RVP on paper: bytes to values and back."""
