"""HTTP/2 as a gRPC server needs it, without I/O: bytes in, calls to a handler and bytes out."""
