"""Token optimization and the token library."""
