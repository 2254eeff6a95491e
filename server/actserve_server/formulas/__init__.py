"""Activations by a formula: read, made more exact, differentiated, made kernels, and looked into.

Mathematics only: nothing here knows messages, files or who asks. The text of a formula comes from anyone; it is parsed into trees of
our own and never executed.
"""

from actserve_server.formulas.define import MOST_PARAMETERS, Definition, define
from actserve_server.formulas.errors import FormulaError
from actserve_server.formulas.examine import Report, examine
from actserve_server.formulas.parse import LONGEST
from actserve_server.formulas.rewrite import Rewrite

__all__ = ["LONGEST", "MOST_PARAMETERS", "Definition", "FormulaError", "Report", "Rewrite", "define", "examine"]
