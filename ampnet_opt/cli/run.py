"""`ampnet-opt run`: pictures, videos and cameras in, expressions out."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional, Sequence

import typer

from ampnet_opt.cli.options import (
    DETECTOR,
    DETECTOR_BACKEND,
    DETECTOR_PRECISION,
    EVERY,
    FACES_PANEL,
    FRAMES,
    INFERENCE_PANEL,
    LANDMARKS_FORMAT,
    MIN_FACE,
    MOST_WORKERS,
    OUTPUT_PANEL,
    STDOUT,
    THREADS,
    flags,
    given,
    json_lines,
    json_option,
    output_option,
)
from ampnet_opt.core.allocator import keep_freed_memory
from ampnet_opt.core.errors import AmpnetError, MisuseError
from ampnet_opt.core.messages import remark, say

if TYPE_CHECKING:
    from ampnet_opt.pipeline.frames import FrameResult
    from ampnet_opt.pipeline.live_rate import Rate
    from ampnet_opt.pipeline.view import Address
    from ampnet_opt.runtime import Engine

BATCH_PANEL = "Many pictures, on a Ray cluster"
LONGEST_SMOOTH = 60  # seconds
STANDARD_INPUT = "/dev/stdin"  # the file that was redirected into it, where one was
# Parameters that go with --ray; the others are for one process.
WITH_RAY = {"engine", "sources", "ray", "parquet", "workers", "threads", "trusted"}
WITH_RAY |= {"detector", "detector_backend", "detector_precision"}
# Those of videos and cameras, and of faces that are sought.
OF_VIDEOS = {"min_face", "every", "smooth"}
OF_SEARCH = {"view", "frames", "detector", "detector_backend", "detector_precision", "blur", *OF_VIDEOS}


def run(
    context: typer.Context,
    engine: Path = typer.Argument(..., metavar="ENGINE", help="An engine directory."),
    sources: List[str] = typer.Argument(
        ...,
        metavar="SOURCES",
        help="Pictures or folders; or a video, /dev/video0, camera:0, csi:0, rtsp://..., or - (a video on stdin).",
    ),
    landmarks: Optional[Path] = typer.Option(
        None,
        "--landmarks",
        help="Table of landmarks, or its folder: each picture is one face, and none is detected.",
        rich_help_panel=FACES_PANEL,
    ),
    form: str = LANDMARKS_FORMAT,
    detector: Optional[Path] = DETECTOR,
    detector_backend: Optional[str] = DETECTOR_BACKEND,
    detector_precision: Optional[str] = DETECTOR_PRECISION,
    min_face: int = MIN_FACE,
    every: int = EVERY,
    smooth: float = typer.Option(
        0.4,
        "--smooth",
        min=0,
        max=LONGEST_SMOOTH,
        help="Average each face's probabilities over this time constant, in seconds; 0: no averaging.",
        rich_help_panel=INFERENCE_PANEL,
    ),
    threads: Optional[int] = THREADS,
    trusted: bool = typer.Option(
        False,
        "--trusted",
        help="Run an engine even if its files were changed after it was built.",
        rich_help_panel=INFERENCE_PANEL,
    ),
    drawn: Optional[Path] = output_option(None, "Drawn picture, video (.mp4, .mkv, .webm, ...), or folder of pictures."),
    force: bool = typer.Option(False, "--force", help="Replace an existing output of -o.", rich_help_panel=OUTPUT_PANEL),
    json_file: Optional[Path] = json_option("one JSON object a line"),
    table: Optional[Path] = typer.Option(
        None, "--csv", metavar="FILE", help="Write a row for each face to this file.", rich_help_panel=OUTPUT_PANEL
    ),
    view: Optional[str] = typer.Option(
        None,
        "--view",
        metavar="[HOST:]PORT",
        help="Serve a live web page on this port (8000); other machines need the token that is printed.",
        rich_help_panel=OUTPUT_PANEL,
    ),
    blur: bool = typer.Option(
        False, "--blur", help="Make faces unrecognisable in what is drawn and shown.", rich_help_panel=OUTPUT_PANEL
    ),
    frames: Optional[int] = FRAMES,
    ray: Optional[str] = typer.Option(
        None,
        "--ray",
        metavar="ADDRESS",
        help="Classify pictures on this Ray cluster: host:port, auto, or local for one on this machine; needs --parquet.",
        rich_help_panel=BATCH_PANEL,
    ),
    parquet: Optional[Path] = typer.Option(
        None,
        "--parquet",
        metavar="FOLDER",
        help="Folder for the results of --ray, one file for 256 pictures; files that exist are kept and not computed again.",
        rich_help_panel=BATCH_PANEL,
    ),
    workers: Optional[int] = typer.Option(
        None,
        "--workers",
        min=1,
        max=MOST_WORKERS,
        help="Number of workers of --ray, each with --threads CPUs, 1 unless given (default: as many as the CPUs allow).",
        rich_help_panel=BATCH_PANEL,
    ),
    warm_up: bool = typer.Option(
        False,
        "--warm-up",
        help="Compile and run the engine once before a camera is opened, so that the first face does not wait. With videos "
        "and pictures that are searched for faces, this is always done.",
        rich_help_panel=INFERENCE_PANEL,
    ),
    blocking_wait: bool = typer.Option(
        False,
        "--blocking-wait",
        help="Sleep while the GPU computes: one processor core is free for other work, each batch takes a little longer.",
        rich_help_panel=INFERENCE_PANEL,
    ),
) -> None:
    """Find the faces in pictures, videos and cameras, and name the expression of each."""
    from ampnet_opt.core.files import require_new
    from ampnet_opt.core.tables import find_table

    if "" in sources:  # Path("") would be the working folder
        raise MisuseError("a source is an empty text: a variable of the shell may be unset")
    if ray is not None or parquet is not None or workers is not None:
        return _run_ray(context, ray, parquet, workers)
    places = _Places(json_file, table, drawn)
    if landmarks is not None:
        extra = given(context) & OF_SEARCH
        if extra:
            raise MisuseError(
                f"{flags(context, extra)} goes without --landmarks: each picture is one face, and none is sought"
            )
        if drawn is not None:
            require_new(drawn, force)
        _require_apart(places, engine, sources, find_table(landmarks, "landmarks file"))
        loading = {"threads": threads, "trusted": trusted, "blocking_wait": blocking_wait}
        return _run_given(engine, sources, landmarks, form, warm_up=warm_up, loading=loading, places=places)
    address = None
    if view is not None:
        from ampnet_opt.pipeline.view import parse_address

        address = parse_address(view)  # known to fail before any work is done
    if blur and drawn is None and view is None:
        raise MisuseError("--blur changes what -o and --view show; give one of them")
    from ampnet_opt.detection.detector import load_detector
    from ampnet_opt.pipeline.live_rate import Rate
    from ampnet_opt.pipeline.outputs import Outputs
    from ampnet_opt.pipeline.pipeline import Pipeline
    from ampnet_opt.pipeline.sources import is_camera, open_source
    from ampnet_opt.runtime import Engine

    if drawn is not None:
        require_new(drawn, force)
    _require_apart(places, engine, sources, detector)
    with ExitStack() as stack:
        loaded = stack.enter_context(Engine.load(engine, threads, trusted=trusted, blocking_wait=blocking_wait))
        live = is_camera(*sources)
        if warm_up and live:
            loaded.warm_up()
        source = stack.enter_context(open_source(*sources))
        idle = given(context) & OF_VIDEOS if source.still else set()
        if idle:
            raise MisuseError(
                f"{flags(context, idle)} goes with videos and cameras: pictures are searched for faces of any size"
            )
        if not live:
            loaded.warm_up(on_stream=True)  # compiling takes the most memory: before the others take theirs
        finder = load_detector(
            detector,
            backend=detector_backend,
            threads=threads,
            precision=detector_precision,
            video=not source.still,
        )
        stack.callback(finder.close)
        if not source.still:
            keep_freed_memory()
            remark(f"faces: {finder.summary}")
        files = None if json_file == STDOUT else json_file
        page = _page(address, engine, loaded, [str(path) for path in (drawn, files, table) if path is not None])
        if page is not None:  # before files of earlier results are replaced: its port may be in use
            stack.enter_context(page)
            remark(f"the page is at {page.address}")
        outputs = stack.enter_context(Outputs(source, loaded.classes, drawn=drawn, json_lines=files, table=table, blur=blur))
        _warn_untrained(loaded)
        if source.still:
            _note_left_out([Path(text) for text in sources])
        rate = stack.enter_context(Rate(source))
        pipeline = Pipeline(loaded, finder, smooth=smooth, every=every, min_face=min_face)
        results = pipeline.frames(source)
        stack.callback(results.close)  # type: ignore[attr-defined]
        reported = 0
        for count, result in enumerate(results, 1):
            image = outputs.write(result, shown=page is not None)
            if page is not None and image is not None:
                page.publish(result, image, dropped=source.dropped, pixel_aspect=source.pixel_aspect)
            _print(result, loaded.classes, json_file, rate)
            reported = _report(source.failures, reported)
            if count == frames:
                break
        _report(source.failures, reported)
        if page is not None:
            page.end()
    if source.failures:
        raise AmpnetError(f"{len(source.failures)} of {source.count} pictures could not be read")


def _run_ray(context: typer.Context, address: Optional[str], output: Optional[Path], workers: Optional[int]) -> None:
    """Classify pictures on a Ray cluster; all else is in the command's parameters."""
    if address is None or output is None:
        raise MisuseError("--ray ADDRESS and --parquet FOLDER go together, and --workers with them")
    others = given(context) - WITH_RAY
    if others:
        raise MisuseError(f"{flags(context, others)}: not with --ray, which takes pictures and writes Parquet alone")
    from ampnet_opt.core.progress import counter
    from ampnet_opt.core.text import count
    from ampnet_opt.pipeline.classify import picture_files
    from ampnet_opt.serving.ray_batch import Work, require_ray, run_batch

    require_ray()
    options = context.params
    paths = [Path(text) for text in options["sources"]]
    pictures = picture_files(paths)
    _note_left_out(paths)
    work = Work(
        options["engine"],
        output,
        options["threads"] or 1,
        options["detector"],
        options["detector_backend"],
        options["detector_precision"],
        options["trusted"],
    )
    with counter("pictures", len(pictures)) as show:
        totals = run_batch(pictures, work, address=address, workers=workers, progress=lambda done: show(done, "pictures"))
    earlier = f"; {count(totals.resumed, 'file')} of an earlier run kept" if totals.resumed else ""
    say(f"{output}: {count(totals.faces, 'face')} in {count(totals.pictures, 'picture')}{earlier}")
    if totals.failures:
        raise AmpnetError(f"{totals.failures} of {totals.pictures} pictures could not be read; the column error says why")


def _require_apart(places: _Places, engine: Path, sources: Sequence[str], other: Optional[Path]) -> None:
    """MisuseError when what is to be written is what is read, or two outputs are one. other: the table or the detector."""
    from ampnet_opt.core.files import require_apart
    from ampnet_opt.pipeline.classify import pictures_in

    paths = [Path(STANDARD_INPUT if text == "-" else text) for text in sources]
    pictures = [file for path in paths for file in (pictures_in(path) if path.is_dir() else [path] if path.exists() else [])]
    outputs, drawn = {"-o": places.drawn, "--json": places.json_file, "--csv": places.table}, places.drawn
    require_apart(outputs, [engine, *pictures, other])
    if drawn is not None and drawn.is_dir() and any(drawn.samefile(folder) for folder in {file.parent for file in pictures}):
        raise MisuseError(f"-o names the folder of the pictures, {drawn}, which drawn ones would replace; name another")


def _report(failures: List[AmpnetError], reported: int) -> int:
    """Say those that were not reported yet; returns how many are now."""
    for failure in failures[reported:]:
        remark(f"error: {failure}")
    return len(failures)


def _print(result: FrameResult, classes: List[str], json_file: Optional[Path], rate: Rate) -> None:
    """One line a face of a picture; of a video, the rate and the faces in view, in place."""
    if json_file == STDOUT:
        import json

        from ampnet_opt.pipeline.records import as_dict

        say(json.dumps(as_dict(result, classes)))
        return
    frame = result.frame
    if not frame.name:
        rate.show(result, [f"{face.track} {classes[face.label]} {face.smoothed[face.label]:.0%}" for face in result.faces])
        return
    for face in result.faces:
        x, y, width, height = (round(value * frame.scale) for value in face.detection.box)
        say(f"{frame.name}  {x},{y} {width}x{height}  {classes[face.label]}  {face.smoothed[face.label]:.1%}")
    for _, reason in result.rejected:
        remark(f"note: {frame.name}: a face is left out: {reason}")
    if not result.faces and not result.rejected:
        remark(f"note: {frame.name}: 0 faces found")


def _page(address: Optional[Address], directory: Path, engine: Engine, stored: List[str]) -> Any:
    if address is None:
        return None
    from ampnet_opt.pipeline.view import View

    about = {"Engine": directory.name, "Backend": engine.sidecar.backend, "Precision": engine.sidecar.precision.upper()}
    return View(host=address.host, port=address.port, classes=engine.classes, about=about, stored=stored)


def _note_left_out(paths: List[Path]) -> None:
    """Name what lies in the folders among the paths and is not read: pictures of other formats, folders, videos."""
    from ampnet_opt.core.text import count, listed
    from ampnet_opt.pipeline.classify import left_out, name_unread
    from ampnet_opt.pipeline.sources.opening import beside_pictures

    others = left_out(paths)
    if others:
        remark(f"note: {count(len(others), 'picture')} left out, in formats that are not read: {name_unread(others)}")
    folders, videos = beside_pictures(paths)
    kinds = [count(len(some), noun) for some, noun in ((folders, "folder"), (videos, "video")) if some]
    if kinds:
        names = listed([*folders, *videos])
        remark(f"note: {' and '.join(kinds)} left out, which are given by name, videos one by one: {names}")


def _warn_untrained(engine: Engine) -> None:
    if not engine.sidecar.trained:
        remark("untrained weights: the answers mean nothing")


class _Places(NamedTuple):
    """Where answers go."""

    json_file: Optional[Path]
    table: Optional[Path]
    drawn: Optional[Path]


def _run_given(
    engine: Path,
    images: List[str],
    landmarks: Path,
    form: str,
    *,
    warm_up: bool,
    loading: Dict[str, Any],
    places: _Places,
) -> None:
    """Classify pictures whose landmarks are given. loading: how the engine is loaded, as of `Engine.load`."""
    from ampnet_opt.pipeline.classify import as_frame, classify, find_faces

    json_file = places.json_file
    paths = [Path(image) for image in images]
    found = find_faces(paths, landmarks, form)
    _note_left_out(paths)
    from ampnet_opt.runtime import Engine

    failures = 0
    with ExitStack() as stack:
        loaded = stack.enter_context(Engine.load(engine, **loading))
        if warm_up:
            loaded.warm_up()
        write = None if json_file is None else stack.enter_context(json_lines(json_file))
        outputs = None
        if places.drawn is not None or places.table is not None:
            from ampnet_opt.pipeline.outputs import Outputs
            from ampnet_opt.pipeline.sources.pictures import Pictures

            source = Pictures([face.file for face in found])
            outputs = stack.enter_context(Outputs(source, loaded.classes, drawn=places.drawn, table=places.table))
        _warn_untrained(loaded)
        for index, result in enumerate(classify(loaded, found, loading["threads"])):
            if result.error is not None:
                failures += 1
                remark(f"error: {result.error}")
                continue
            if write is not None:
                write(result.as_dict())
            if outputs is not None:
                outputs.write(as_frame(index, found[index], result, pixels=places.drawn is not None))
            if json_file != STDOUT:
                say(f"{result.file}  {result.label}  {result.probabilities[result.label]:.1%}")
    if failures:
        raise AmpnetError(f"{failures} of {len(found)} pictures could not be classified")
