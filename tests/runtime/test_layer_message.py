"""The list of kernels that TensorRT-RTX gives while it builds: recorded lines, and lines of every such form."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampnet_opt.core.errors import AmpnetError
from ampnet_opt.runtime.layers import BYTES, CONVOLUTION, OTHER, PRODUCT, downgraded, sentence, summarise
from ampnet_opt.runtime.tensorrt.layer_message import layers_of_message

# Lines of a build of a small network by TensorRT-RTX 1.7.1.116, with some of the constants left out.
NHWC, LINEAR = "Format: (NHWC) Channel major format", "Format: (Linear) Row major linear format"
FACTOR = f"{{ Name: __mye140434_const_myl0, Dimensions: [1], Strides: [1], StrideOrder: [0], Datatype: Float, {LINEAR} }}"
RECORDED = f"""Layers:
Name: __mye22177_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: 
Name: entry^bb^signal^4_myl0_1, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, EventId: 121, Metadata: 
Name: entry^bb^wait^4_myl0_2, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 4, EventId: 121, Metadata: 
Name: /model/stem/conv/Conv_myl0_4, LayerType: correlation, Inputs: [ {{ Name: __mye47620/model/stem/conv/Conv_output_0_before_bias.1_47_myl0, Dimensions: [-1,4,224,224], Strides: [200704,1,896,4], StrideOrder: [3,0,2,1], Datatype: Int8, {NHWC} }}], Constants: [ {{ Name: __mye118137_dconst_myl0, Dimensions: [8,4,7,7], Strides: [196,1,28,4], StrideOrder: [3,0,2,1], Datatype: Int8, {NHWC} }}, {{ Name: __mye64341dconst_myl0, Dimensions: [1,8,1,1], Strides: [8,1,8,8], StrideOrder: [3,0,2,1], Datatype: Float, {NHWC} }}], Outputs: [ {{ Name: __myln_k_arg__bb1_48_myl0, Dimensions: [-1,8,112,112], Strides: [100352,1,896,8], StrideOrder: [3,0,2,1], Datatype: Float, {NHWC} }}], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: /model/stem/conv/Conv][ONNX Layer: /Transpose_output_0_dequantized_single_DQ][ONNX Layer: _v_1373_DQ]
Name: /model/stages.1/layers.0/conv_norm/conv/Conv_myl0_69, LayerType: correlation, Inputs: [ {{ Name: __myln_k_arg__bb1_102_myl0, Dimensions: [-1,32,14,14], Strides: [6272,1,448,32], StrideOrder: [3,0,2,1], Datatype: Half, {NHWC} }}, {{ Name: /model/stages.1/layers.0/conv_norm/conv/Conv_output_0.1_99_myl0, Dimensions: [16,32,3,3], Strides: [288,1,96,32], StrideOrder: [3,0,2,1], Datatype: Half, {NHWC} }}], Constants: [ {FACTOR}, {{ Name: __mye64671dconst_myl0, Dimensions: [1,16,1,1], Strides: [16,1,16,16], StrideOrder: [3,0,2,1], Datatype: Half, {NHWC} }}], Outputs: [ {{ Name: __myln_k_arg__bb1_103_myl0, Dimensions: [-1,16,14,14], Strides: [3136,1,224,16], StrideOrder: [3,0,2,1], Datatype: Half, {NHWC} }}], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: /model/stages.1/layers.0/conv_norm/conv/Conv]
Name: /model/local_fc/Gemm_myl0_426, LayerType: gemm, Inputs: [ {{ Name: __mye47587/model/local_fc/Gemm_output.1_536_myl0, Dimensions: [-1,256], Strides: [256,1], StrideOrder: [1,0], Datatype: Int8, {LINEAR} }}], Constants: [ {{ Name: __mye52942_dconst_myl0, Dimensions: [256,64], Strides: [1,256], StrideOrder: [0,1], Datatype: Int8, Format: (Transposed) Transposed format }}, {FACTOR}], Outputs: [ {{ Name: __myln_k_arg__bb1_537_myl0, Dimensions: [-1,64], Strides: [64,1], StrideOrder: [1,0], Datatype: Half, {LINEAR} }}], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: [ONNX Layer: /model/local_fc/Gemm][ONNX Layer: /model/Concat_10_output_0_DQ]
Name: /model/MatMul_9_myl0_430, LayerType: gemm, Inputs: [ {{ Name: /model/Split_output_8.1_myl0, Dimensions: [-1,160,28], Strides: [4480,28,1], StrideOrder: [2,1,0], Datatype: Int8, Format: (Arbitrary) Format with stride order = [0,2,1] }}, {{ Name: /model/Transpose_8_output_0_to_half.1_myl0, Dimensions: [-1,28,10], Strides: [280,10,1], StrideOrder: [2,1,0], Datatype: Half, {LINEAR} }}], Constants: [ {FACTOR}], Outputs: [ {{ Name: __myln_k_arg__bb1_168_myl0, Dimensions: [-1,160,10], Strides: [1600,10,1], StrideOrder: [2,1,0], Datatype: Half, {LINEAR} }}], TacticName: __myelin_CASK_STUB, StreamId: 2, Metadata: [ONNX Layer: /model/MatMul_9]
Name: __myl_CorrAdd_myl0_213, LayerType: runtime_fusion, Inputs: [ {{ Name: __myln_k_arg__bb1_432_myl0, Dimensions: [-1,2,1,1], Strides: [2,1,2,2], StrideOrder: [3,0,2,1], Datatype: Half, {NHWC} }}], Constants: [ {{ Name: __mye48312dconst_myl0, Dimensions: [2,32,1,1], Strides: [32,1,32,32], StrideOrder: [3,0,2,1], Datatype: Half, {NHWC} }}], Outputs: [ {{ Name: Add_output_0.1_myl0, Dimensions: [-1,2,1,1], Strides: [2,1,2,2], StrideOrder: [3,0,2,1], Datatype: Half, {NHWC} }}], TacticName: , StreamId: 0, Metadata: [ONNX Layer: gates.0/Conv][ONNX Layer: gates.0/Relu]

I/O Tensors:
 Name: image, IOMode: Input, DataType: UInt8, Dimensions: [-1,224,224,3], Location: Device

Engine Metadata:
 Multi-Device: Disabled
"""  # noqa: E501


def test_the_recorded_list() -> None:
    layers = layers_of_message(RECORDED)
    assert [layer.kind for layer in layers] == ["correlation", "correlation", "gemm", "gemm", "runtime_fusion"]
    assert [layer.role for layer in layers] == [CONVOLUTION, CONVOLUTION, PRODUCT, PRODUCT, CONVOLUTION]
    assert [layer.precision for layer in layers] == ["int8", "fp16", "int8", "fp16", "fp16"]
    assert [layer.bytes for layer in layers] == [8 * 4 * 49 + 8 * 4, 16 * 2, 256 * 64, None, 2 * 32 * 2]
    assert layers[0].sources == ("/model/stem/conv/Conv", "/Transpose_output_0_dequantized_single_DQ", "_v_1373_DQ")
    assert layers[0].written == (("fp32", 8 * 112 * 112 * 4),)


def test_the_record_warns_of_a_convolution_in_another_precision() -> None:
    layers = layers_of_message(RECORDED)
    second = "/model/stages.1/layers.0/conv_norm/conv/Conv"
    expected = {"/model/stem/conv/Conv": (), second: (), "/model/local_fc/Gemm": ()}
    assert downgraded(layers, "int8", expected) == {second: "fp16"}
    assert sentence(summarise(layers, "int8", expected)) == (
        "1 convolution and 1 matrix product in INT8, 1 layer in FP16 by design, 1 downgraded, 0 reformats, "
        "0.4 MB of activations written for an image (FP32 0.4, FP16 0.0)"
    )


TYPES = {"Float": "fp32", "Half": "fp16", "Int8": "int8", "UInt8": "int8", "FP8": "fp8", "Int64": "int64", "Odd": ""}
NAMES = st.text("abzAZ019/._^, :=-", min_size=1, max_size=12).map(str.strip).filter(bool)
TENSORS = st.tuples(NAMES, st.lists(st.integers(1, 9), min_size=1, max_size=4), st.sampled_from([*TYPES]), st.booleans())


def line(name: str, kind: str, groups: list[list[tuple[str, list[int], str, bool]]], nodes: list[str]) -> str:
    def written(tensor: tuple[str, list[int], str, bool]) -> str:
        title, shape, kind, batch = tensor
        sizes = ",".join(map(str, ([-1] if batch else []) + shape))
        return f" {{ Name: {title}, Dimensions: [{sizes}], Strides: [1], StrideOrder: [0], Datatype: {kind}, {NHWC} }}"

    lists = [f"{word}: [{','.join(map(written, group))}]" for word, group in zip(("Inputs", "Constants", "Outputs"), groups)]
    made = "".join(f"[ONNX Layer: {node}]" for node in nodes)
    return f"Name: {name}, LayerType: {kind}, {', '.join(lists)}, TacticName: x, StreamId: 3, Metadata: {made}"


@given(
    NAMES, st.sampled_from(["kgen", "correlation", "gemm"]), st.lists(st.lists(TENSORS, max_size=3), min_size=3, max_size=3),
    st.lists(NAMES, max_size=3),
)  # fmt: skip
def test_a_line_of_any_names_and_shapes_is_read_back(name: str, kind: str, groups: list, nodes: list[str]) -> None:
    (layer,) = layers_of_message(f"Layers:\n{line(name, kind, groups, nodes)}\n\nI/O Tensors:\n")
    assert (layer.name, layer.kind, layer.sources) == (name, kind, tuple(nodes))
    assert layer.role == {"correlation": CONVOLUTION, "gemm": PRODUCT}.get(kind, OTHER)
    wanted = [(TYPES[t], math.prod(shape) * BYTES.get(TYPES[t], 0)) for _, shape, t, _ in groups[2]]
    assert list(layer.written) == wanted
    assert (layer.precision == "int8") <= (not groups[0] or TYPES[groups[0][0][2]] == "int8")


@pytest.mark.parametrize("text", ["Layers:", "Layers:\nName: a", "Layers:\nName: a, LayerType: kgen, Inputs: []\n"])
def test_a_list_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(AmpnetError, match="of no form that is known") as caught:
        layers_of_message(text)
    assert "\n" not in str(caught.value)
