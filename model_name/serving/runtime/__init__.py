"""Process runtime: sockets, TLS, signals, memory and log configuration."""
