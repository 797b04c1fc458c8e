"""Trains models of equal structure at once, as a GPU needs it to be busy; on a CPU for tests, against each alone."""
