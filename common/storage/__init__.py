"""Model storage: one module a store. Each lists the versions that a base path holds."""
