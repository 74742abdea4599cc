"""The worlds of the commands' tests, made once for all of them."""

from __future__ import annotations

import pytest
from world import AnalysedWorld, World, analyse_world, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    pytest.importorskip("openvino", reason="these engines run in OpenVINO")
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> AnalysedWorld:
    pytest.importorskip("openvino", reason="these engines run in OpenVINO")
    return analyse_world(tmp_path_factory.mktemp("analysed"))
