"""Channel groups: what can be removed together, found by following every channel through every operator."""

from .graph import ChannelGraph, Group, analyze, groups, stem
from .rebuild import remove_units
from .registry import Flow, NotCovered, Rule, Site, covered_operators, rule

__all__ = [
    "ChannelGraph",
    "Flow",
    "Group",
    "NotCovered",
    "Rule",
    "Site",
    "analyze",
    "covered_operators",
    "groups",
    "remove_units",
    "rule",
    "stem",
]
