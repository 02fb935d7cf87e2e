"""The contract of each plug-in protocol as a test suite: subclass it, return your plug-in, run pytest.

Example:
    >>> class TestMine(SelectorContract):
    ...     def plugin(self):
    ...         return Mine()
"""

from llmal.testing.contracts.annotate import AnnotatorContract, FilterContract
from llmal.testing.contracts.generate import GeneratorContract
from llmal.testing.contracts.learn import EncoderContract, StudentContract
from llmal.testing.contracts.plugin import PluginContract
from llmal.testing.contracts.select import SelectorContract
from llmal.testing.contracts.ship import ExporterContract, RouterContract

__all__ = [
    "AnnotatorContract",
    "EncoderContract",
    "ExporterContract",
    "FilterContract",
    "GeneratorContract",
    "PluginContract",
    "RouterContract",
    "SelectorContract",
    "StudentContract",
]
