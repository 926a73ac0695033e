"""The workers: one process a device replica, inferring in place on the frontends' shared memory."""
