"""Schema versions of the store, applied by Alembic when a store is opened."""
