"""Modules up and down: the MLP of all layers without its gate.

Formula: none; the units are named. They are the same for every emotion, so specificity between emotions is 0
by construction; strength, preservation and the effect matrix tell what the group carries.
Source: module-level claims about adaptation to emotion, arXiv 2601.15906.
"""

from affectbench.module_ranking import ModuleType


class ModuleUpDown(ModuleType):
    name = "module_up_down"
    sites = ("module",)
    kind = "up+down"
