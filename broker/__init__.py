"""The broker: decides which worker runs which request, which versions are loaded and which workers exist."""
