"""One transcript for each client of protocol notes, section 11, and the tests that play them."""
