"""Checks of a study file, before anything of it is trusted."""
