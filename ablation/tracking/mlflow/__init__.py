"""Remembers studies in MLflow; imported only where a store is used, as MLflow takes seconds to import."""
