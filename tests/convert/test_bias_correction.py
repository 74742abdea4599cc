from __future__ import annotations

import numpy as np
from small import faces, float_graph, placement, quantized, run, scales

from ampnet_opt.convert.bias_correction import bias_corrections
from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.convert.quantize import quantize, quantize_weight


def corrections() -> dict[str, np.ndarray]:
    images, landmarks = faces()
    return bias_corrections(float_graph(), placement(), scales(), [(images[:3], landmarks[:3]), (images[3:], landmarks[3:])])


def test_a_correction_is_the_mean_shift_of_a_layer_fed_from_the_float_network() -> None:
    index, found = GraphIndex(float_graph().graph), corrections()
    assert list(found) == placement().layers
    nodes = {node.name: node for node in float_graph().graph.node}
    name = "/model/local_fc/Gemm"  # a matrix product, whose shift numpy can say
    node = nodes[name]
    (x,) = run(float_graph(), faces(), optimise=False, fetch=[node.input[0]])
    scale = np.float32(scales()[node.input[0]])
    weight = index.array(node.input[1])
    values, weight_scale = quantize_weight(weight)
    read = np.clip(np.rint(x / scale), -128, 127) * scale
    shift = (x @ weight.T - read @ (values * weight_scale[:, None]).T).mean(0)
    np.testing.assert_allclose(found[name], shift, rtol=1e-3, atol=1e-7)
    assert np.abs(shift).max() > 1e-5


def test_corrected_layers_are_right_on_average_where_all_before_them_is_float() -> None:
    # The stem reads the image itself, so its own INT8 output shows the correction at work.
    (stem,) = (node for node in float_graph().graph.node if node.name == "/model/stem/conv/Conv")
    corrected = quantize(float_graph(), placement(), scales(), corrections())
    graphs = (float_graph(), quantized(), corrected)
    exact, plain, better = (run(graph, faces(), optimise=False, fetch=[stem.output[0]])[0] for graph in graphs)
    off_before = np.abs((plain - exact).mean((0, 2, 3))).max()
    off_after = np.abs((better - exact).mean((0, 2, 3))).max()
    assert off_before > 1e-4
    assert off_after < off_before / 100


def test_only_biases_change() -> None:
    corrected = quantize(float_graph(), placement(), scales(), corrections())
    biases = {node.input[2] for node in quantized().graph.node if node.name in placement().layers}
    new = {node.input[2]: node for node in corrected.graph.node if node.name in placement().layers}
    assert len(new) == len(placement().layers)  # one each, though layers may have shared one
    kept = {t.name: t for t in quantized().graph.initializer if t.name not in biases}
    assert {t.name: t for t in corrected.graph.initializer if t.name not in new and t.name not in biases} == kept
