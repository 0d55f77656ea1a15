"""How domains find each other."""
