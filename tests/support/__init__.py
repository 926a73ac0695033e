"""What tests of the whole server share: a server of their own, clients, models, load, and looks at its processes."""
