"""How the directory's tables came to be; run by C{rvpfarm init}."""
