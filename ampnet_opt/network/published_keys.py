"""The key layout of the authors' checkpoints: which of our modules each of theirs is, and which are dead."""

from __future__ import annotations

import re

from ampnet_opt.network.model import ATTENTION_PATCHES, LOCAL_PATCHES

DEAD = re.compile(r"layer4_2_\d+\.|Occlusionlayer|fc_1_1\.|fc_2_1\.|fc_4\.|fc_4_1\.")
HEADS = ("fc_5.weight", "fc_3.weight")

RESIDUAL_BLOCK = {
    "first.conv": "conv1",
    "first.norm": "bn1",
    "second.conv": "conv2",
    "second.norm": "bn2",
    "shortcut.conv": "downsample.0",
    "shortcut.norm": "downsample.1",
    "gates.0.mlp.0": "cbam.ChannelGate.mlp.1",
    "gates.0.mlp.2": "cbam.ChannelGate.mlp.3",
    "gates.1.mix.conv": "cbam.SpatialGate.spatial.conv",
    "gates.1.mix.norm": "cbam.SpatialGate.spatial.bn",
}
GATED_CONV = {"conv_norm.conv": "conv", "conv_norm.norm": "norm", "gate.fc": "pw_cbam.sigatten.fc2"}


def _modules() -> dict[str, str]:
    """Our module name -> the published one, for every module with weights (shortcuts that do not exist included)."""
    names = {
        "stem.conv": "conv1",
        "stem.norm": "bn1",
        "local_fc": "fc_1",
        "attention_fc": "fc_2",
        "global_head": "fc_3",
        "patch_head": "fc_5",
    }
    blocks = {f"trunk.{i}.{j}": f"layer{i + 1}.{j}" for i, depth in enumerate((3, 4)) for j in range(depth)}
    for k in range(LOCAL_PATCHES):  # a local branch is published as two halves of two blocks
        blocks.update({f"local.{k}.{j}": f"layer3_{1 + j // 2}_{k + 1}.{j % 2}" for j in range(4)})
    for k in range(ATTENTION_PATCHES):
        blocks.update({f"attention.{k}.{j}": f"layer4_1_{k + 1}.{j}" for j in range(2)})
    for ours, theirs in blocks.items():
        names.update({f"{ours}.{part}": f"{theirs}.{name}" for part, name in RESIDUAL_BLOCK.items()})
    for i in range(3):
        stage = f"OSA{i + 2}_1"
        prefix = f"stage{i + 2}.{stage}"
        for j in range(3):
            for part, name in GATED_CONV.items():
                names[f"stages.{i}.layers.{j}.{part}"] = f"{prefix}.layers.{j}.{stage}_{j}/{name}"
        names[f"stages.{i}.join.conv"] = f"{prefix}.concat.{stage}_concat/conv"
        names[f"stages.{i}.join.norm"] = f"{prefix}.concat.{stage}_concat/norm"
        names[f"stages.{i}.attention.fc"] = f"{prefix}.ese.fc"
    return names


MODULES = _modules()


def published_key(key: str) -> str:
    """The published name of one of `AMPNet`'s state-dict keys."""
    module, _, leaf = key.rpartition(".")
    return f"{MODULES[module]}.{leaf}"


LEAVES = ("weight", "bias", "running_mean", "running_var")
PUBLISHED = frozenset(f"{name}.{leaf}" for name in MODULES.values() for leaf in LEAVES)
