"""The data plane: the OCI `/v2` API over a storage driver."""
