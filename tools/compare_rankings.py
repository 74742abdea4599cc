"""Does it pay to weigh a layer's noise by the time that INT8 saves in it, when layers go back to floating point?

    python tools/compare_rankings.py CKPT DATA.csv [--decibels 1 2 4 6] [--seconds 60]

For each SQNR of the logits to reach, in dB above that of all layers in INT8, the fewest layers are chosen twice: the
noisiest first, as `build --max-drop` does, and the most noise for the least time first, as `optimize` does. All these
engines, all-INT8 and all-FP32 are timed in the same interleaved rounds, on the cpu backend. 256 faces of train calibrate,
128 of val choose.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ampnet_opt.benchmarks.workers import Subject
from ampnet_opt.convert.build import MixedPrecision, Recipe, origin_of, request_of
from ampnet_opt.convert.source import calibrate, float_proof, source_of
from ampnet_opt.core.labels import label_indices
from ampnet_opt.core.processor import available_cores
from ampnet_opt.core.progress import steps
from ampnet_opt.faces.face import read_faces, spread
from ampnet_opt.network.checkpoint import read_checkpoint
from ampnet_opt.optimize.from_checkpoint import RANKING_FACES, saved_seconds
from ampnet_opt.optimize.speed import GOALS, Speed, measure
from ampnet_opt.runtime.backend import find_backend
from ampnet_opt.runtime.build import compile_engine
from ampnet_opt.runtime.compile_options import CompileOptions
from ampnet_opt.sensitivity.mixed_precision import BATCH, LayerJudge, choose_layers, rank
from ampnet_opt.sensitivity.search import Budget, by_gain

CALIBRATION_FACES, JUDGING_FACES = 256, 128
BACKEND = find_backend("cpu")


def compare(path: Path, data: Path, decibels: Sequence[float], seconds: float, folder: Path) -> None:
    checkpoint, threads = read_checkpoint(path), available_cores()
    calibrating = spread(read_faces(data, "train"), CALIBRATION_FACES)
    held_out = spread(read_faces(data, "val"), JUDGING_FACES)
    labels = np.array(label_indices(checkpoint.classes, [face.label for face in held_out]))
    with steps() as step:
        source = source_of(checkpoint, "uint8")
        with step("calibrating", len(calibrating)) as progress:
            int8 = calibrate(source, calibrating, "entropy", progress)
        ranking = rank(checkpoint, source, int8, spread(calibrating, RANKING_FACES), step)
    ranking = replace(ranking, faces=int8.table.faces, data_fingerprint=int8.table.data_fingerprint)
    origin = origin_of(checkpoint, source)
    recipe = Recipe(source, origin, float_proof(source, calibrating), {}, int8, None)
    subjects: list[Subject] = []

    def build(name: str, precision: str, mixed: MixedPrecision | None = None) -> Path:
        directory = folder / name
        directory.mkdir()
        request = request_of(replace(recipe, mixed_precision=mixed), precision, BACKEND, CompileOptions())
        compile_engine(request, directory)[0].write(directory)
        subjects.append(Subject(name, "engine", directory, threads))
        return directory

    saved = saved_seconds(build("FP32", "fp32"), build("INT8", "int8"), source.placement.layers, threads)
    judge = LayerJudge(source.graph, int8, BACKEND, origin, batches=source.batches(held_out, BATCH), labels=labels)
    all_int8 = judge(())
    notes = {"FP32": "", "INT8": f"{all_int8.sqnr_db:.1f} dB"}
    for more in decibels:
        for order, rows in (("noise", ranking.rows), ("noise by time", by_gain(ranking.rows, saved))):
            chosen = choose_layers(judge, replace(ranking, rows=rows), Budget(None, 0.0, all_int8.sqnr_db + more))
            name = f"+{more:g} dB, {order}"
            build(name, "int8", chosen)
            notes[name] = f"{chosen.record['sqnr_db']:.1f} dB, {len(chosen.layers)} layers in floating point"
            print(name, notes[name], flush=True)
    speeds, _ = measure(subjects, GOALS["latency"], 1, seconds)
    by_name = {subject.name: speed for subject, speed in zip(subjects, speeds, strict=True)}
    for name, speed in by_name.items():
        assert speed is not None
        print(f"{speed.value:8.3f} ms [{speed.low:.3f}, {speed.high:.3f}]  {name:24} {notes[name]}")
    for more in decibels:
        noise, gain = by_name[f"+{more:g} dB, noise"], by_name[f"+{more:g} dB, noise by time"]
        assert noise is not None and gain is not None
        print(f"+{more:g} dB: the noisiest first takes {_ratio(noise, gain)} of the time of noise by time")


def _ratio(slow: Speed, fast: Speed) -> str:
    ratios = np.array(slow.turns) / np.array(fast.turns)
    return (
        f"{np.median(ratios):.3f} (of rounds, quartiles {np.quantile(ratios, 0.25):.3f} to {np.quantile(ratios, 0.75):.3f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--decibels", type=float, nargs="+", default=[1, 2, 4, 6])
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        compare(given.checkpoint, given.data, given.decibels, given.seconds, Path(folder))


if __name__ == "__main__":
    main()
