"""One table from names to entries: ours, lazy ones, and those of other packages."""

import sys
import warnings
from importlib.metadata import EntryPoint

import pytest

from tvmcompress.passes.errors import UserError
from tvmcompress.passes.plugins import registry as module
from tvmcompress.passes.plugins.registry import PluginWarning, Registry


@pytest.fixture
def installed(monkeypatch):
    """Sets the entry points of every group."""

    def install(**values):
        points = [EntryPoint(name, value, "acme.colours") for name, value in values.items()]
        monkeypatch.setattr(module, "entry_points", lambda group: points)

    return install


def colours(group=""):
    table = Registry("colour", group, lazy={"ochre": "collections:OrderedDict"})

    @table.register("red", "crimson")
    def red():
        """Warm.

        Like fire.
        """

    return table


def test_registered_and_lazy_entries():
    table = colours()
    assert list(table) == ["red", "crimson", "ochre"]
    assert len(table) == 3
    assert table["red"] is table["crimson"]
    assert table["ochre"].__name__ == "OrderedDict"
    assert "ochre" in table
    assert "blue" not in table
    assert table.get("blue") is None
    assert table.summaries()["red"] == "Warm."


def test_what_is_not_there_is_refused_with_a_hint():
    with pytest.raises(UserError, match="^there is no colour 'crimsom'; did you mean crimson\\?$"):
        colours()["crimsom"]
    with pytest.raises(UserError, match="^there is no colour 'x'; choose one of red, crimson, ochre$"):
        colours()["x"]


def test_other_packages_are_not_imported_for_our_own_names(monkeypatch):
    monkeypatch.setattr(module, "entry_points", lambda group: pytest.fail("looked for packages"))
    assert colours("acme.colours")["red"]


def test_only_the_package_asked_for_is_imported(installed):
    installed(blue="colorsys:rgb_to_hls", green="wave:open")
    sys.modules.pop("wave", None)
    assert colours("acme.colours")["blue"].__name__ == "rgb_to_hls"
    assert "wave" not in sys.modules


def test_what_cannot_be_imported_is_named_once_and_left_out(installed):
    installed(blue="colorsys:rgb_to_hls", broken="no_such_module_xyz:f", number="math:pi", red="colorsys:rgb_to_hsv")
    table = colours("acme.colours")
    with pytest.warns(PluginWarning) as told:
        assert list(table) == ["red", "crimson", "ochre", "blue"]
    assert sorted(str(warning.message) for warning in told) == [
        "the colour 'broken' of the package no_such_module_xyz cannot be used: "
        "ModuleNotFoundError: No module named 'no_such_module_xyz'; it is left out",
        "the colour 'number' of the package math cannot be used: math:pi is not a Callable; it is left out",
        "the colour 'red' of the package colorsys has a name that is taken; it is left out",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(table) == ["red", "crimson", "ochre", "blue"]
    assert "broken" not in table
    with pytest.raises(UserError, match="the colour 'broken' of the package no_such_module_xyz cannot be used: ModuleNot"):
        table["broken"]
