from __future__ import annotations

import re

import pytest
from small import float_graph, placement

from ampnet_opt.convert.graph import GraphIndex
from ampnet_opt.convert.placement import Placement

# By the names that the network's modules have, where the code goes by the shape of the graph.
GATES_AND_HEADS = re.compile(r"/gates/|/gate/|/attention/fc/|_head/")


@pytest.fixture(scope="module")
def index() -> GraphIndex:
    return GraphIndex(float_graph().graph)


def before_pool(tensor: str, index: GraphIndex) -> str:
    maker = index.producers.get(tensor)
    return maker.input[0] if maker is not None and maker.op_type == "MaxPool" else tensor


def trunk_map(index: GraphIndex) -> str:
    (entry,) = index.producers["/model/stages.0/layers.0/conv_norm/conv/Conv_output_0"].input[:1]
    return entry


def test_layers_are_all_products_but_gates_and_heads() -> None:
    products = [node.name for node in float_graph().graph.node if node.op_type in {"Conv", "Gemm"}]
    kept_out = [name for name in products if GATES_AND_HEADS.search(name)]
    # 26 blocks with CBAM's gates of 4 convolutions each, 9 scalar gates, 3 channel attentions, 2 heads.
    assert len(kept_out) == 26 * 4 + 9 + 3 + 2
    assert placement().layers == [name for name in products if name not in kept_out]


def test_every_layer_reads_a_placed_tensor(index: GraphIndex) -> None:
    nodes = {node.name: node for node in float_graph().graph.node}
    for name in placement().layers:
        assert before_pool(nodes[name].input[0], index) in placement().tensors, name


def test_pairs_stand_before_pools(index: GraphIndex) -> None:
    pools = [node for node in float_graph().graph.node if node.op_type == "MaxPool"]
    assert len(pools) == 3
    for pool in pools:
        assert pool.input[0] in placement().tensors
        assert pool.output[0] not in placement().tensors


def test_shortcuts_of_ungated_blocks_are_placed(index: GraphIndex) -> None:
    additions = [n for n in float_graph().graph.node if n.op_type == "Add" and re.match(r"/model/trunk/.*/Add$", n.name)]
    assert len(additions) == 7
    for node in additions:
        (shortcut,) = (name for name in node.input if "/second/" not in name)
        assert before_pool(shortcut, index) in placement().tensors, node.name


def test_shortcut_convolutions_of_gated_blocks_are_not_placed() -> None:
    outputs = [n.output[0] for n in float_graph().graph.node if re.match(r"/model/(local|attention)\..*/shortcut/", n.name)]
    assert len(outputs) == 4 * 2 + 5
    assert not set(outputs) & set(placement().tensors)


def test_concatenated_maps_share_the_scale_of_their_concatenation(index: GraphIndex) -> None:
    joins = [index.producers[index.producers[f"/model/stages.{i}/join/conv/Conv_output_0"].input[0]] for i in range(3)]
    shared = placement().tensors
    for join in joins:
        assert join.op_type == "Concat" and len(join.input) == 4
        assert {shared[before_pool(name, index)] for name in join.input} == {shared[join.output[0]]}
    assert len({shared[join.output[0]] for join in joins}) == 3


def test_concatenated_vectors_keep_one_scale_for_themselves() -> None:
    for node in float_graph().graph.node:
        if node.op_type == "Gemm" and node.name in placement().layers:
            assert placement().groups()[placement().tensors[node.input[0]]] == [node.input[0]]


def test_patches_share_the_scale_of_the_map_they_are_cut_from(index: GraphIndex) -> None:
    nodes = {node.name: node for node in float_graph().graph.node}
    branches = [f"/model/{kind}.{i}/{kind}.{i}.0" for kind, count in (("local", 4), ("attention", 5)) for i in range(count)]
    patches = {nodes[f"{branch}/first/conv/Conv"].input[0] for branch in branches}
    assert len(patches) == 9
    assert {placement().tensors[patch] for patch in patches} == {placement().tensors[trunk_map(index)]}


def test_groups_are_a_partition_named_by_a_member() -> None:
    groups = placement().groups()
    members = [tensor for group in groups.values() for tensor in group]
    assert sorted(members) == sorted(placement().tensors)
    assert all(name in group for name, group in groups.items())


def test_joining_groups_moves_all_members() -> None:
    made = Placement()
    made.add("a", "b")
    made.add("c", "d")
    made.add("a", "c")
    made.add("e")
    assert sorted(map(sorted, made.groups().values())) == [["a", "b", "c", "d"], ["e"]]
