"""What administrators do: handlers and the C{rvpfarm} command over them."""
