"""What every process of the server shares: messages, memory, records, errors. Imports none of the other packages."""
