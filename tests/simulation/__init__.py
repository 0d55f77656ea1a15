"""A whole farm in one process on one clock, with everything that goes wrong drawn from one seed."""
