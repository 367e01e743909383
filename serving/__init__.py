"""What every HTTP process of ours shares: the server, TLS, health, metrics, logs, limits, configuration."""
