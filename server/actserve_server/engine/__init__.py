"""The engine: a job becomes a plan, and a plan turns chunks of input into pieces of a result.

    plan = plan(job, limits)                  everything is checked here
    for piece in Run(plan).pieces(chunks): ...

It knows modes, activations and compiled loops, and neither messages nor calls.
"""
