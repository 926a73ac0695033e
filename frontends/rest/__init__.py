"""The REST front door: falcon on gunicorn's asgi worker."""
