"""What runs jobs on other machines: the agent on each node, what it keeps there, and how files come and go.

A node needs nothing for it beyond the standard library and what a run needs; `plugin` alone knows the engine.
"""
