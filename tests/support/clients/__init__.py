"""What each client of protocol notes, section 11, can digest: its own way of reading, and what kills it."""
