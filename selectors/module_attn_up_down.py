"""Modules attn, up and down: all but gate_proj, of all layers.

Formula: none; the units are named. They are the same for every emotion, so specificity between emotions is 0
by construction; strength, preservation and the effect matrix tell what the group carries.
Source: module-level claims about adaptation to emotion, arXiv 2601.15906.
"""

from affectbench.module_ranking import ModuleType


class ModuleAttnUpDown(ModuleType):
    name = "module_attn_up_down"
    sites = ("module",)
    kind = "attn+up+down"
