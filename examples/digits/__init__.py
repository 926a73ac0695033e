"""A classifier of handwritten digits: how it was trained, the model, a client, and a server run that shows it."""
