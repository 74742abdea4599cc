"""The result of the GPU check as Markdown."""

from __future__ import annotations

from typing import Any


def to_markdown(result: dict[str, Any]) -> str:
    """result: as `gpu_check` writes it as JSON."""
    lines = ["# GPU check", "", f"Date: {result['date']}", ""]
    if result["gpu"] is None:
        lines += ["**No GPU: nothing was run.**", "", f"{result['problem']}.", ""]
    else:
        kind = "shares the processor's memory" if result["gpu"]["integrated"] else "has memory of its own"
        lines += [f"GPU: {result['gpu']['name']}, compute capability {result['gpu']['compute_capability']}, {kind}", ""]
    lines += _environment(result)
    for subject, network in dict.fromkeys((part["subject"], part["network"]) for part in result["parts"]):
        chosen = [part for part in result["parts"] if (part["subject"], part["network"]) == (subject, network)]
        lines += [f"## {subject}, {network} network", "", *_outcomes(chosen), *_latency(chosen)]
    if result["parts"]:
        lines += [
            "Latency in ms, p50 / p99. GPU: CUDA events around the network, copies left out. End to end: host wall clock, "
            "inputs and logits in host memory.",
            "",
        ]
    return "\n".join(lines)


def _environment(result: dict[str, Any]) -> list[str]:
    about = result["environment"]
    backends = {
        name: found["version"] if found.get("version") else f"no: {found.get('problem')}"
        for name, found in about["backends"].items()
    }
    rows = {
        "ampnet-opt": about["ampnet_opt"],
        "system": f"{about['system']}, Python {about['python']}, {about['processor']}",
        "board": (about.get("board") or {}).get("model"),
        "driver": about.get("driver"),
        "CUDA": about.get("cuda"),
        **backends,
        **result["packages"],
    }
    return ["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(value or '-')} |" for name, value in rows.items()), ""]


def _outcomes(parts: list[dict[str, Any]]) -> list[str]:
    lines = ["| part | outcome | |", "|---|---|---|"]
    for part in parts:
        figures = [
            f"{name.replace('_', ' ')} {_number(value)}" for name, value in part["figures"].items() if name != "latency"
        ]
        lines.append(f"| {part['name']} | {part['outcome']} | {_cell(part['detail'] or ', '.join(figures))} |")
    return [*lines, ""]


def _latency(parts: list[dict[str, Any]]) -> list[str]:
    rows = [(part["name"], row) for part in parts for row in part["figures"].get("latency", [])]
    if not rows:
        return []
    lines = ["| | batch | GPU | end to end | CUDA graph |", "|---|---:|---:|---:|---|"]
    for name, row in rows:
        gpu, whole = (_times(row[key]) if key in row else "-" for key in ("gpu", "end_to_end"))
        lines.append(f"| {name} | {row['batch']} | {gpu} | {whole} | {row.get('cuda_graph', '-')} |")
    return [*lines, ""]


def _times(milliseconds: list[float]) -> str:
    return " / ".join(f"{value:.3f}" for value in milliseconds)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
