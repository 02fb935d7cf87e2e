"""The peers' side of `routing_peers.py`: run by the interpreter that has them, knows nothing of llmal.

    python peer_routers.py                 prints which are installed, as JSON
    python peer_routers.py JOB.npz OUT.npz  runs them on recorded answers

A job is a NumPy file: `spec` says what to do in JSON, the other arrays are its data. `bargain` is given its
proxy and its oracle as its documents ask, by subclassing, only that all answers of a batch are looked up at
once instead of one in a thread each. `tracer-llm` is used through `fit`, `load_router` and `predict_batch`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

PEERS = ("bargain", "tracer-llm")


def players(said, scores, truth):
    """A proxy and an oracle of `bargain` that look up recorded answers."""
    from BARGAIN import Oracle, Proxy

    class Recorded(Proxy):
        def get_preds_and_scores(self, indxs, data_records):
            rows = np.asarray(indxs, int)
            return said[rows], scores[rows]

    class People(Oracle):
        def reset(self):
            self.asked, self.sampled = set(), 0

        def get_number_preds(self):
            return len(self.asked)

        def is_answer_correct(self, data_indxs, data_records, proxy_output_at_indxs):
            self.asked.update(np.asarray(data_indxs, int).tolist())
            self.sampled = len(self.asked)
            return truth[np.asarray(data_indxs, int)] == np.asarray(proxy_output_at_indxs)

        def get_pred(self, data_records, indxs=None):
            rows = np.asarray(data_records if indxs is None else indxs, int)
            self.asked.update(rows.tolist())
            return truth[rows]

    return Recorded(verbose=False), People(verbose=False)


def accuracy(job, spec):
    """BARGAIN_A for each target, judge and trial: who answered, and how many answers found the threshold."""
    from BARGAIN import BARGAIN_A

    used, sampled = [], []
    for target in spec["targets"]:
        for truths in job["truth"]:
            for seed, (said, scores, truth) in enumerate(
                zip(job["said"], job["scores"], truths, strict=True)
            ):
                proxy, oracle = players(said, scores, truth)
                router = BARGAIN_A(proxy, oracle, target, spec["delta"], verbose=False, seed=seed)
                used.append(router.process(list(range(len(said))), return_oracle_usage=True)[1])
                sampled.append(oracle.sampled)
    shape = (len(spec["targets"]), *job["truth"].shape[:2])
    return {"used": np.array(used).reshape(*shape, -1), "sampled": np.array(sampled).reshape(shape)}


def chosen(job, spec):
    """BARGAIN_P or BARGAIN_R for each trial: which items are returned as positive."""
    import BARGAIN

    kind = getattr(BARGAIN, spec["class"])
    found = np.zeros(job["truth"].shape, bool)
    for seed, (scores, truth) in enumerate(zip(job["scores"], job["truth"], strict=True)):
        said = (scores >= 0.5).astype(int)
        proxy, oracle = players(said, np.where(said, scores, 1 - scores), truth.astype(int))
        router = kind(proxy, oracle, target=spec["target"], delta=spec["delta"], seed=seed, **spec["more"])
        found[seed, np.asarray(router.process(list(range(len(truth)))), int)] = True
    return {"found": found}


def once(function):
    """Fits nothing twice: `fit` tries the same surrogates on the same rows for each of its three methods.

    Their seeds are fixed, so that the outcome is the same; only the time is not.
    """
    kept = {}

    def found(*arrays, skip=(), **_):
        key = (tuple(skip), *(a.tobytes() for a in arrays))
        if key not in kept:
            kept[key] = function(*arrays, skip=skip)
        return kept[key]

    found.forget = kept.clear
    return found


def tracer(job, spec):
    """For each target and trial: which rows a fitted router handles, and its answers."""
    pipeline = import_module("tracer.fit.pipeline")  # the package's own `fit` is a function
    pipeline.search_best_surrogate = once(pipeline.search_best_surrogate)
    handled, said = [], []
    for seed, teacher in enumerate(job["teacher"]):
        x, new = (job[k] if job[k].ndim == 2 else job[k][seed] for k in ("vectors", "new"))
        rows = job["rows"][seed] if "rows" in job else np.arange(len(x))
        out = job["out"][seed] if "out" in job else np.arange(len(new))
        pipeline.search_best_surrogate.forget()
        for target in spec["targets"]:
            keep, label = routed(x[rows], teacher, new[out], target, spec["skip"])
            handled.append(keep)
            said.append(label)
    shape = (len(job["teacher"]), len(spec["targets"]), -1)
    return {
        "handled": np.array(handled).reshape(shape).swapaxes(0, 1),
        "said": np.array(said).reshape(shape).swapaxes(0, 1),
    }


def routed(x, teacher, new, target, skip):
    """What one router, fitted to traces, handles of new items, and what it says; -1 where it defers."""
    from tracer.api import fit, load_router
    from tracer.config import FitConfig

    config = FitConfig(
        target_teacher_agreement=target,
        frontier_targets=(target,),
        verbose=False,
        skip_candidates=tuple(skip),
    )
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "traces.jsonl"
        pairs = [{"input": str(i), "teacher": str(t)} for i, t in enumerate(teacher)]
        path.write_text("\n".join(json.dumps(pair) for pair in pairs), encoding="utf-8")
        made = fit(path, Path(place) / "router", embeddings=x, config=config)
        if made.manifest.selected_method is None:
            return np.zeros(len(new), bool), np.full(len(new), -1)
        got = load_router(Path(place) / "router").predict_batch(new)
    labels = [-1 if label is None else int(label) for label in got["labels"]]
    return np.asarray(got["handled"], bool), np.array(labels)


def main() -> None:
    if len(sys.argv) < 3:
        have = {}
        for name in PEERS:
            try:
                have[name] = version(name)
            except PackageNotFoundError:
                have[name] = None
        print(json.dumps(have))
        return
    with np.load(sys.argv[1], allow_pickle=False) as file:
        job = {key: file[key] for key in file.files}
    spec = json.loads(str(job.pop("spec")))
    np.savez(
        sys.argv[2], **{"accuracy": accuracy, "chosen": chosen, "tracer": tracer}[spec["kind"]](job, spec)
    )


if __name__ == "__main__":
    main()
