"""Every candidate of this machine by hand: is the winner of `optimize` the fastest one that is right?

    python tools/try_all.py CKPT DATA.csv RESULT.json      RESULT: optimize.json of the same checkpoint and data

Builds and times every candidate and every calibration method, judges all of them on the faces that prove, drops none on the
way, and holds the fastest admissible one against the winner. It takes as long as it takes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ampnet_opt.benchmarks.compare import SCORING_BATCH
from ampnet_opt.benchmarks.noninferiority import Margin, is_non_inferior, judge
from ampnet_opt.benchmarks.workers import Subject, Worker
from ampnet_opt.core.labels import label_indices
from ampnet_opt.core.processor import available_cores
from ampnet_opt.core.progress import steps
from ampnet_opt.faces.face import load_batches, read_faces, spread
from ampnet_opt.network.checkpoint import read_checkpoint
from ampnet_opt.optimize.candidates import Faces, runnable
from ampnet_opt.optimize.from_checkpoint import CheckpointMaker, NetworkFile
from ampnet_opt.optimize.speed import GOALS, measure
from ampnet_opt.runtime.build import compile_engine
from ampnet_opt.runtime.compile_options import CompileOptions

CALIBRATION_FACES = 256
SECONDS = 30.0


def main(path: Path, data: Path, result: Path) -> None:
    checkpoint, threads = read_checkpoint(path), available_cores()
    winner = json.loads(result.read_text())["best"]
    calibrating, choosing, final = (read_faces(data, split) for split in ("train", "val", "test"))
    labels = np.array(label_indices(checkpoint.classes, [face.label for face in final]))
    maker = CheckpointMaker(
        checkpoint,
        NetworkFile(path),
        runnable()[0],
        image_input="uint8",
        calibrating=spread(calibrating, CALIBRATION_FACES),
        choosing=Faces(choosing, label_indices(checkpoint.classes, [face.label for face in choosing])),
        compiling=CompileOptions(),
        threads=threads,
    )
    assert maker.reference is not None
    with TemporaryDirectory() as folder, steps() as step:
        candidates = list(maker.candidates())
        candidates += [v for one in candidates if one.precision == "int8" for v in maker.variants(one)]
        subjects = []
        for candidate in candidates:
            directory = Path(folder) / candidate.name
            directory.mkdir()
            compile_engine(maker.request(candidate, step), directory)[0].write(directory)
            subjects.append(Subject(candidate.name, "engine", directory, threads))
        speeds, _ = measure(subjects, GOALS["latency"], 1, SECONDS)
        logits = []
        for subject in [maker.reference, *subjects]:
            with Worker(subject) as worker:
                logits.append(np.concatenate([worker.infer(*batch) for batch in load_batches(final, SCORING_BATCH)]))
    rows = []
    for candidate, speed, found in zip(candidates, speeds, logits[1:], strict=True):
        assert speed is not None
        evidence = judge(logits[0], found, labels, checkpoint.classes, Margin())
        right = candidate.precision == "fp32" or is_non_inferior(evidence.counts, Margin())
        rows.append((speed.value, candidate.name, right))
        print(f"{speed.value:8.2f} ms  {candidate.name:24} {evidence.verdict:18} {evidence.agreement.value:.2%}")
    fastest = min(row for row in rows if row[2])
    print(f"the fastest that is right: {fastest[1]}, {fastest[0]:.2f} ms; optimize chose {winner}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
