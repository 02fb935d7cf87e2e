"""Exports that the tests of this folder share: making one takes seconds."""

import pytest

from llmal.export.onnx import Onnx
from llmal.export.stage import write
from llmal.testing import parcels

MAKE = {
    "many": lambda home: parcels.finetuned(home, parcels.schema_of(20)),
    "linear": lambda home: parcels.linear(home, parcels.schema_of(6, "multi")),
    "binary": lambda home: parcels.finetuned(home, parcels.schema_of(2), cut="left"),
    "multi": lambda home: parcels.finetuned(home, parcels.schema_of(5, "multi")),
    "linear single": lambda home: parcels.linear(home, parcels.schema_of(4)),
}


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """Case -> (parcel, exported folder), each made once and left as it is; `many` has int8 too."""
    home, made = tmp_path_factory.mktemp("exports"), {}

    def get(case):
        if case not in made:
            parcel = MAKE[case](home / case)
            write(Onnx(int8=case == "many"), parcel, home / case / "model")
            made[case] = parcel, home / case / "model"
        return made[case]

    return get
