#!/bin/sh
# The entry that the documents name: runs its arguments, with the server's own Python first on the PATH.
# It is replaced by what it runs, so that signals and the exit code are those of the server.
PATH="/ie-serving-py/venv/bin:$PATH"
export PATH
exec "$@"
