"""Spares the processes of a test what costs them most and is not its subject, see `sparing`.

Python imports this before anything else wherever this folder is on PYTHONPATH, in spawned workers too.
"""

import sparing

sparing.spare(sparing.ALL)
