"""Bytes at paths. Knows no digests, no repositories, no HTTP."""
