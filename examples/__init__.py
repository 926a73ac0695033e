"""Examples of what to serve and how to call it."""
