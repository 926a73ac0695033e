"""The gRPC front door: a table of raw-bytes methods, and the transports that read it."""
