"""Vigie side by side with its peers: see ../compare."""
