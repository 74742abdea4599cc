"""Boards read from trees of files that follow public reports of real ones; see tests/boards/README.md."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from places import BOARDS

from ampnet_opt.system.board import (
    COMPUTE_CAPABILITIES,
    JETPACKS,
    SHIPS,
    Module,
    cuda_version,
    driver_version,
    missing_tensorrt,
    read_board,
    system_tensorrt,
)
from ampnet_opt.system.clocks import Clock, PowerMode, read_cpu_clock, read_gpu_clock, read_power_mode


@pytest.mark.parametrize(
    "name, model, l4t, jetpack, capability, tensorrt",
    [
        ("orin-nano", "Jetson Orin Nano Engineering Reference Developer Kit Super", "36.4.3", "6.2", "8.7", "10.3"),
        ("agx-orin", "Jetson AGX Orin Developer Kit", "36.4.0", "6.1", "8.7", "10.3"),
        ("xavier-nx", "Jetson Xavier NX Developer Kit", "35.4.1", "5.1.2", "7.2", "8.5.2"),
        ("thor", "Jetson AGX Thor Developer Kit", "38.4.0", "7.1", "11.0", "10.13"),
    ],
)
def test_board_and_its_jetpack(name: str, model: str, l4t: str, jetpack: str, capability: str, tensorrt: str) -> None:
    board = read_board(BOARDS / name)
    assert board is not None and board.ships is not None
    assert (board.model, board.l4t, board.jetpack) == (f"NVIDIA {model}", l4t, jetpack)
    assert (board.compute_capability, board.ships["tensorrt"]) == (capability, tensorrt)
    assert board.refusal is None


def test_nano_on_jetpack_4_is_refused_with_what_to_do() -> None:
    board = read_board(BOARDS / "nano")
    assert board is not None and board.ships is None
    assert board.refusal == (
        "JetPack 4.6.1 (L4T 32.7.1) is not supported: its TensorRT is older than 8.5; "
        "no newer JetPack exists for this board, so use a Xavier, an Orin or a Thor"
    )


def test_xavier_on_jetpack_4_is_told_to_update(tmp_path: Path) -> None:
    shutil.copytree(BOARDS / "xavier-nx", tmp_path / "board")
    shutil.copy(BOARDS / "nano/etc/nv_tegra_release", tmp_path / "board/etc/nv_tegra_release")
    board = read_board(tmp_path / "board")
    assert board is not None and board.refusal is not None
    assert board.refusal.endswith("install JetPack 5.1 or newer on this board")


@pytest.mark.parametrize(
    "revision, refused", [("35 (release), REVISION: 1.0", True), ("35 (release), REVISION: 2.1", False)]
)
def test_jetpack_5_is_supported_from_5_1_on(tmp_path: Path, revision: str, refused: bool) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(f"# R{revision}, GCID: 1, BOARD: t186ref\n")
    board = read_board(tmp_path)
    assert board is not None and (board.refusal is not None) == refused


def test_release_that_came_out_after_the_table_is_of_its_series(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 9.1, GCID: 1\n")
    board = read_board(tmp_path)
    assert board is not None and (board.jetpack, board.refusal) == ("6.x", None)
    assert board.ships == {"tensorrt": "10.3", "cuda": "12.6", "python": "3.10"}


def test_table_of_releases_is_in_order_and_every_supported_one_ships_something() -> None:
    releases = [tuple(map(int, release.split("."))) for release in JETPACKS]
    assert releases == sorted(releases)
    assert [first for first, _ in SHIPS] == sorted(first for first, _ in SHIPS)
    supported = [release for release in releases if release >= SHIPS[0][0]]
    assert all(any(first <= release for first, _ in SHIPS) for release in supported)
    assert all(len(release) == 3 for release in releases)


def test_container_without_the_release_file_is_still_a_jetson(tmp_path: Path) -> None:
    shutil.copytree(BOARDS / "orin-nano/proc", tmp_path / "proc")
    board = read_board(tmp_path)
    assert board is not None
    assert (board.l4t, board.jetpack, board.compute_capability, board.refusal) == (None, None, "8.7", None)
    assert (board.power_mode, board.fastest, board.gpu_clock, board.advice()) == (None, None, None, [])


def test_other_machines_are_no_boards(tmp_path: Path) -> None:
    assert read_board(tmp_path) is None
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/compatible").write_bytes(b"raspberrypi,4-model-b\0brcm,bcm2711\0")
    assert read_board(tmp_path) is None


def test_jetpack_5_names_the_orin_twice(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    names = b"nvidia,p3737-0000+p3701-0000\0nvidia,tegra23x\0nvidia,tegra234\0"
    (tmp_path / "proc/device-tree/compatible").write_bytes(names)
    board = read_board(tmp_path)
    assert board is not None and board.compute_capability == "8.7"
    assert {"tegra194", "tegra234", "tegra264"} <= set(COMPUTE_CAPABILITIES)


@pytest.mark.parametrize(
    "name, mode, fastest",
    [
        ("orin-nano", PowerMode(0, "15W"), PowerMode(2, "MAXN_SUPER")),  # 0 is not the fastest here
        ("agx-orin", PowerMode(0, "MAXN"), PowerMode(0, "MAXN")),
        ("xavier-nx", PowerMode(2, "MODE_15W_6CORE"), PowerMode(8, "MODE_20W_6CORE")),  # no MAXN, and the default mode
        ("thor", PowerMode(1, "120W"), PowerMode(0, "MAXN")),
        ("nano", PowerMode(0, "MAXN"), PowerMode(0, "MAXN")),
    ],
)
def test_power_mode_and_the_fastest(name: str, mode: PowerMode, fastest: PowerMode) -> None:
    assert read_power_mode(BOARDS / name) == (mode, fastest)


@pytest.mark.parametrize("names", [("MAXN", "MAXN_SUPER"), ("MAXN_SUPER", "MAXN")])
def test_super_mode_is_above_the_plain_one(tmp_path: Path, names: tuple[str, str]) -> None:
    (tmp_path / "etc").mkdir()
    lines = [f"< POWER_MODEL ID={number} NAME={name} >" for number, name in enumerate(names)]
    (tmp_path / "etc/nvpmodel.conf").write_text("\n".join(lines))
    assert read_power_mode(tmp_path)[1] == PowerMode(names.index("MAXN_SUPER"), "MAXN_SUPER")


def test_modes_whose_names_tell_nothing_have_no_fastest(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nvpmodel.conf").write_text("< POWER_MODEL ID=0 NAME=CAR >\n< POWER_MODEL ID=1 NAME=BOAT >\n")
    assert read_power_mode(tmp_path) == (None, None)


@pytest.mark.parametrize(
    "name, gpu",
    [
        ("orin-nano", Clock(306, 306, 1020)),
        ("agx-orin", Clock(1300.5, 1300.5, 1300.5)),
        ("xavier-nx", Clock(114.75, 114.75, 1109.25)),
        ("thor", Clock(315, 315, 1575)),  # and not the video engine's
        ("nano", None),
    ],
)
def test_gpu_clock(name: str, gpu: Clock | None) -> None:
    assert read_gpu_clock(BOARDS / name) == gpu


def test_gpu_whose_first_cluster_is_not_told_has_no_clock(tmp_path: Path) -> None:
    """The video engine's clock beside it is not the GPU's."""
    shutil.copytree(BOARDS / "thor", tmp_path / "thor")
    shutil.rmtree(tmp_path / "thor/sys/class/devfreq/gpu-gpc-0")
    assert read_gpu_clock(tmp_path / "thor") is None


def test_cpu_clock_is_the_mean_of_the_clusters() -> None:
    assert read_cpu_clock(BOARDS / "orin-nano") == Clock((1267.2 + 1728) / 2, 729.6, 1728)


def test_advice_names_this_boards_commands() -> None:
    boards = {name: read_board(BOARDS / name) for name in ("orin-nano", "agx-orin", "xavier-nx")}
    advice = {name: board.advice() for name, board in boards.items() if board is not None}
    assert advice["agx-orin"] == []  # the fastest mode, and its clocks are locked
    assert "sudo nvpmodel -m 2" in advice["orin-nano"][0] and "306 of 1020 MHz" in advice["orin-nano"][1]
    assert "sudo nvpmodel -m 8" in advice["xavier-nx"][0] and "sudo jetson_clocks" in advice["xavier-nx"][1]


def test_versions_beside_the_board() -> None:
    orin = BOARDS / "orin-nano"
    assert (cuda_version(orin), driver_version(orin)) == ("12.6.68", "540.4.0")
    assert (cuda_version(BOARDS / "nano"), driver_version(BOARDS / "nano")) == (None, None)


def test_driver_of_a_desktop(tmp_path: Path) -> None:
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Wed Jan 22 2025\nGCC version:  gcc version 13.3.0\n"
    (tmp_path / "proc/driver/nvidia/version").write_text(line)
    assert driver_version(tmp_path) == "570.86.15"


def test_where_the_system_keeps_tensorrt() -> None:
    found = system_tensorrt(BOARDS / "orin-nano")
    assert found == Module("/usr/lib/python3.10/dist-packages", "3.10", "10.3.0")
    assert system_tensorrt(BOARDS / "nano") is None


@pytest.mark.parametrize(
    "python, virtual, why",
    [
        ("3.10", True, "which this virtual environment does not see"),
        ("3.10", False, "but this Python does not look there"),
        ("3.11", True, "but this is Python 3.11"),
        ("3.11", False, "but this is Python 3.11"),
    ],
)
def test_fix_for_a_python_that_does_not_see_tensorrt(python: str, virtual: bool, why: str) -> None:
    text = missing_tensorrt(system_tensorrt(BOARDS / "orin-nano"), python, virtual)
    assert text.startswith(f"TensorRT 10.3.0 is in /usr/lib/python3.10/dist-packages, for Python 3.10, {why};")
    assert text.endswith(": /usr/bin/python3.10 -m venv --system-site-packages ENV")


def test_fix_where_tensorrt_is_not_installed() -> None:
    assert "sudo apt install python3-libnvinfer" in missing_tensorrt(None, "3.10", virtual=True)
