"""The OCI conformance suite against the real server."""
