"""The OCI `/v2` API: HTTP only. It knows the roles of `registry/repository.py`, and nothing of
storage."""
