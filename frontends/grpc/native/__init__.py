"""gRPC over our own HTTP/2 connection: requests' heads, messages, calls, answers, and the protocol on asyncio."""
