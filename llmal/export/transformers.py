"""A folder plain transformers loads; a linear student ships as encoder folder plus a safetensors head."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path

from llmal.errors import UserError
from llmal.export.card import card
from llmal.export.runtime import FORMAT
from llmal.export.stage import Exporter, Parcel


class Transformers(Exporter):
    """Safetensors, `id2label`, tokenizer, model card, and `llmal.json` with classes, threshold and measures.

    Source: the model folder and card conventions of the transformers and huggingface_hub libraries.
    """

    def export(self, parcel: Parcel, folder: Path) -> None:
        """Write into an existing, empty folder.

        Raises:
            UserError: the student is of a kind this exporter cannot ship.
        """
        if parcel.kind == "finetune":
            shutil.copytree(parcel.student, folder, dirs_exist_ok=True)
        elif parcel.headed:
            if parcel.kind == "setfit":
                parcel = parcel._replace(encoder=Tuned(parcel.student / "encoder"))
            self._linear(parcel, folder)
        elif parcel.kind == "estimator":
            _estimator(parcel, folder)
        else:
            raise UserError(f"`export: transformers` cannot ship a '{parcel.kind}' student", where="export")
        _without_auto_map(folder)
        made_with = {"versions": {name: version(name) for name in self.libraries(parcel, folder)}}
        parcel = parcel._replace(facts=parcel.facts | made_with)
        about = {
            "format": FORMAT,
            "student": parcel.kind,
            "encoder": parcel.encoder.to_spec() if _reads_vectors(parcel) else None,
            "max_length": parcel.max_length,
            "kind": parcel.schema.kind,
            "labels": [label.model_dump(exclude={"examples"}) for label in parcel.schema.labels],
            "threshold": parcel.threshold,
            **parcel.facts,
        }
        (folder / "llmal.json").write_text(
            json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        (folder / "README.md").write_text(card(parcel), encoding="utf-8")

    def libraries(self, parcel: Parcel, folder: Path) -> list[str]:
        """The packages whose versions the card states."""
        if parcel.kind == "finetune":
            return ["torch", "transformers", "tokenizers"]
        sentence = (folder / "encoder").is_dir()
        kept = ["skops"] if parcel.kind == "estimator" else []
        return [
            "scikit-learn",
            *kept,
            *(("torch", "transformers", "sentence-transformers") if sentence else ()),
        ]

    def _linear(self, parcel: Parcel, folder: Path) -> None:
        for name in ("head.safetensors", "head.json"):
            shutil.copy2(parcel.student / name, folder / name)
        parcel.encoder.save(folder / "encoder")


def _reads_vectors(parcel: Parcel) -> bool:
    if parcel.kind != "estimator":
        return parcel.headed
    about = json.loads((parcel.student / "estimator.json").read_text(encoding="utf-8"))
    return bool(about["reads"] == "vectors")


def _estimator(parcel: Parcel, folder: Path) -> None:
    """The user's estimator as skops keeps it, for one that anybody can read: of types skops itself trusts.

    Raises:
        UserError: it needs code or trust that the folder cannot bring along.
    """
    about = json.loads((parcel.student / "estimator.json").read_text(encoding="utf-8"))
    if about["trusted"] or any(part["kept"] == "own" for part in about["parts"]):
        names = ", ".join(about["trusted"])
        what = f"types that are trusted only by name ({names})" if names else "files of its own kind"
        raise UserError(
            f"this estimator cannot be shipped: it holds {what}",
            where="export",
            hint="Teach another student with `train: {final: ...}`, or load it from the run's folder",
        )
    shutil.copytree(parcel.student, folder, dirs_exist_ok=True)
    if _reads_vectors(parcel):
        parcel.encoder.save(folder / "encoder")


class Tuned:
    """The encoder a setfit student tuned for itself, which ships in place of the run's."""

    name = "sentence"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def to_spec(self) -> dict[str, str]:
        """What reads it, in float32 as the student itself does."""
        return {"use": self.name, "precision": "float32"}

    def save(self, folder: Path) -> bool:
        """Copy it."""
        shutil.copytree(self.folder, folder)
        return True


def _without_auto_map(folder: Path) -> None:
    """Forget classes that a base model's files name beside those of transformers: an export names no code."""
    for file in folder.rglob("*config*.json"):
        held = json.loads(file.read_text(encoding="utf-8"))
        if held.pop("auto_map", None) is not None:
            file.write_text(json.dumps(held, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
