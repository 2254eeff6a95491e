"""Services that compute on arrays sent to them, each with its own client: what actserve's transport is compared with.

A peer is a script that runs in an environment of its own (`requirements/NAME.txt`), starts its server as a child process, and is told by
`benchmarks/services.py` when to make a call; `contest` is what they share. It needs the standard library and NumPy alone.
"""
