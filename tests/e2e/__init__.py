"""Real clients against the real server over TLS."""
