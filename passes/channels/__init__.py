"""Channel groups: what can be removed together, found by following every channel through every operator."""

from .graph import ChannelGraph, Group, analyze, groups, stem
from .rebuild import remove_units
from .registry import RULES, Flow, NotCovered, Rule, Site, rule

__all__ = [
    "RULES",
    "ChannelGraph",
    "Flow",
    "Group",
    "NotCovered",
    "Rule",
    "Site",
    "analyze",
    "groups",
    "remove_units",
    "rule",
    "stem",
]
