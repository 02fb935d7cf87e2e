"""A folder plain transformers loads; a linear student ships as encoder folder plus a safetensors head."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from llmal.errors import UserError
from llmal.export.stage import Exporter, Parcel

FORMAT = 1
"""Of `llmal.json`; `llmal.load` refuses newer ones."""


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
        elif parcel.kind == "linear":
            self._linear(parcel, folder)
        else:
            raise UserError(f"`export: transformers` cannot ship a '{parcel.kind}' student", where="export")
        about = {
            "format": FORMAT,
            "student": parcel.kind,
            "encoder": parcel.encoder.to_spec() if parcel.kind == "linear" else None,
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

    def _linear(self, parcel: Parcel, folder: Path) -> None:
        for name in ("head.safetensors", "head.json"):
            shutil.copy2(parcel.student / name, folder / name)
        parcel.encoder.save(folder / "encoder")


def card(parcel: Parcel) -> str:
    """The model card: YAML head that hubs read, then what a person should know.

    Texts of the corpus never enter.
    """
    facts = parcel.facts
    measured = facts.get("measures", {})
    head: dict[str, Any] = {
        "library_name": "transformers" if parcel.kind == "finetune" else "sentence-transformers",
        "pipeline_tag": "text-classification",
        "tags": ["llmal", "text-classification"],
        "metrics": ["accuracy", "f1"],
    }
    lines = ["---", *(f"{k}: {json.dumps(v)}" for k, v in head.items()), "---", "", "# Text classifier", ""]
    how = {"single": "one label a text", "multi": "any number of labels a text"}[parcel.schema.kind]
    lines += [f"Made by llmal {facts['llmal']}: a `{parcel.kind}` student, {how}.", "", "## Labels", ""]
    lines += [f"- `{_line(label.name)}`" + (f": {_line(label.description)}" if label.description else "")
              for label in parcel.schema.labels]  # fmt: skip
    lines += ["", "## Measured", ""]
    if measured:
        lines += ["| measure | value | 95 % interval | n |", "|---|---|---|---|"]
        lines += [f"| {_line(n)} | {m['value']:.3f} | {m['low']:.3f} to {m['high']:.3f} | {m['n']} |"
                  for n, m in measured.items() if m["value"] is not None]  # fmt: skip
        lines += ["", "On a random sample of the corpus reserved for measuring, against people's answers."]
    else:
        lines += ["Nothing: no answers of people were known when this was exported."]
    lines += ["", "## Limits", ""]
    lines += [
        (
            f"- Learnt from {facts['trained_on']} labelled texts ({_sources(facts['sources'])}); "
            f"data hash `{facts['data']}`."
        ),
        "- The measures hold for texts like those of that corpus; on others, measure again.",
        "- Probabilities are the student's own and are not calibrated.",
        "",
    ]
    return "\n".join(lines)


def _sources(counts: dict[str, int]) -> str:
    return ", ".join(
        f"{n} from {'people' if s == 'human' else 'a machine annotator'}" for s, n in sorted(counts.items())
    )


def _line(text: str) -> str:
    """One line of Markdown that stays text: no table bars, no tags, no line breaks."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
