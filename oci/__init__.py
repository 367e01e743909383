"""The vocabulary of OCI registries: digests, references, descriptors, manifests, errors. Pure: no
I/O."""
