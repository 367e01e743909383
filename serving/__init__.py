"""What every HTTP process of ours shares: server, TLS, health, metrics, logs, limits, config."""
