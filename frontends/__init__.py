"""The frontends: stateless processes that turn API requests into references to shared memory, and back."""
