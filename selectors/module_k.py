"""Module type k: the key projections of all layers.

Formula: none; the units are named. They are the same for every emotion, so specificity between emotions is 0
by construction; strength, preservation and the effect matrix tell what the type carries.
Source: module-level claims about adaptation to emotion, arXiv 2601.15906.
"""

from affectbench.module_ranking import ModuleType


class ModuleK(ModuleType):
    name = "module_k"
    sites = ("module",)
    kind = "k"
