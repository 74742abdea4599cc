"""Files made to exhaust the machine: each ends in a sentence, within a second and little more memory than the file."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import pytest
from places import SUPPORT

from ampnet_opt.core.json_files import LARGEST

SECONDS = 1.0
SPARE = 100 << 20
PROBE = SUPPORT / "hostile_probe.py"


def zipped(program: bytes, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, data in members.items():
            archive.writestr(f"archive/data/{name}", data)
    return stream.getvalue()


def tensor(key: bytes, shape: bytes, stride: bytes, storage: bytes = b"0", count: int = 1) -> bytes:
    """Instructions for one item of a dict: a float32 tensor. shape, stride: instructions that push a tuple."""
    place = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX" + struct.pack("<I", len(storage)) + storage
    place += b"X\x03\0\0\0cpuJ" + struct.pack("<i", count) + b"tQ"
    name = b"X" + struct.pack("<I", len(key)) + key
    return name + b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + b"K\0" + shape + stride + b"\x89}tR"


def long(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def table(*items: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(items) + b"u."


def nested(levels: int) -> bytes:
    """A tuple that holds itself twice, so many times over."""
    return b"\x80\x02)" + b"2\x86" * levels


HEADS = (
    tensor(b"fc_5.weight", b"(" + long(1 << 40) + b"M\x00\x04t", b"(K\0K\0t"),
    tensor(b"fc_3.weight", b"(" + long(1 << 40) + b"M\x00\x02t", b"(K\0K\0t"),
)
PICKLES: dict[str, bytes] = {
    "memo_index": b"\x80\x02Nr\xff\xff\xff\xff.",
    "memo_index_text": b"Np4294967295\n.",
    "memo_ladder": b"\x80\x02N" + b"".join(b"r" + struct.pack("<I", 2**i) for i in range(31)) + b".",
    "key_of_doubled_tuples": b"\x80\x02}" + nested(60)[2:] + b"Ns.",
    "key_of_deep_tuples": b"\x80\x02})" + b"\x85" * 400_000 + b"Ns.",
    "set_of_doubled_tuples": b"\x80\x04\x8f(" + nested(60)[2:] + b"\x90.",
    "frozenset_of_doubled_tuples": b"\x80\x04(" + nested(60)[2:] + b"\x91.",
    "argument_of_doubled_tuples": b"\x80\x02c__builtin__\nset\n" + nested(60)[2:] + b"\x85R.",
    "deep_lists": b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".",
    "deep_tuples": b"\x80\x02)" + b"\x85" * 900_000 + b".",
    "deep_dicts": b"\x80\x02" + b"}K\1" * 200_000 + b"N" + b"s" * 200_000 + b".",
    "doubled_lists": b"\x80\x02]"
    + b"".join(b"q" + bytes([i]) + b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(99))
    + b".",
    "text_long": b"L" + b"9" * 5_000 + b"L\n.",
    "text_int": b"I" + b"9" * 2_000_000 + b"\n.",
    "binary_long": b"\x80\x02\x8b" + struct.pack("<i", 3_000_000) + b"\x7f" * 3_000_000 + b".",
    "negative_long": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "long_name_without_end": b"c" + b"a" * 1_000_000,
    "string_beyond_the_file": b"\x80\x02X\xff\xff\xff\xffabc.",
    "string_of_64_bits": b"\x80\x04\x8d" + b"\xff" * 8 + b"a.",
    "negative_string": b"\x80\x02T\xff\xff\xff\xffabc.",
    "bytes_of_64_bits": b"\x80\x04\x8e" + b"\x7f" * 8 + b"a.",
    "frames": b"\x80\x04" + b"\x95" + b"\xff" * 8 + b"N.",
    "many_nones": b"\x80\x02" + b"N" * 3_000_000 + b".",
    "many_marks": b"\x80\x02" + b"(" * 3_000_000 + b".",
    "many_lists": b"\x80\x02" + b"]" * 3_000_000 + b".",
    "many_dicts": b"\x80\x02" + b"}" * 3_000_000 + b".",
    "many_numbers": b"\x80\x02](" + b"G\x40\x45\x12\x34\x56\x78\x9a\xbc" * 1_400_000 + b"e.",
    "many_names": b"\x80\x02" + b"".join(b"cx%d\ny\n0" % i for i in range(100_000)) + b"N.",
    "copied_argument": b"\x80\x02(" + b"N" * 300_000 + b"tq\0ccollections\nOrderedDict\nq\1" + b"h\1h\0R0" * 200_000 + b"N.",
    "copied_pairs": b"\x80\x02]("
    + b"N" * 300_000
    + b"eq\0ccollections\nOrderedDict\nq\1"
    + b"h\1h\0\x85R0" * 200_000
    + b"N.",
    "colliding_keys": b"\x80\x02}("
    + b"".join(b"\x8a\x0e" + (i * (2**61 - 1)).to_bytes(14, "little") + b"N" for i in range(1, 60_000))
    + b"u.",
    "wide_character": b"\x80\x02X" + struct.pack("<I", 30_000_004) + "\U0001f600".encode() + b"a" * 30_000_000 + b".",
    "stride_0": table(*HEADS),
    "overlapping_strides": table(*(head.replace(b"(K\0K\0t", b"(K\1K\1t") for head in HEADS)),
    "shape_of_many_dimensions": table(
        tensor(b"fc_5.weight", b"(" + b"K\1" * 100_000 + b"t", b"(" + b"K\1" * 100_000 + b"t")
    ),
    "shape_that_overflows": table(tensor(b"fc_5.weight", b"(" + long(1 << 62) * 4 + b"t", b"(" + b"K\0" * 4 + b"t")),
    "negative_shape": table(tensor(b"fc_5.weight", b"(" + long(-1) + b"K\1t", b"(K\1K\1t")),
    "reduce_without_arguments": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "itself": b"\x80\x02]q\0h\0a.",
    "tables_in_tables": b"\x80\x02" + b"}X\1\0\0\0a" * 100_000 + b"N" + b"s" * 100_000 + b".",
    "shared_tables": b"\x80\x02}q\0"
    + b"".join(b"}(X\1\0\0\0ah" + bytes([i]) + b"X\1\0\0\0bh" + bytes([i]) + b"uq" + bytes([i + 1]) for i in range(100))
    + b".",
}


def shared_buffer() -> bytes:
    """A thousand views, each from the first number of 20 MB to the last."""
    count = 5_000_000
    shape, stride = b"(K\2K\1t", b"(" + long(count - 1) + b"K\1t"
    items = [tensor(b"a%d.weight" % i, shape, stride, count=count) for i in range(1000)]
    heads = [
        tensor(name, b"(K\7M\x00" + wide + b"t", b"(K\1K\1t", count=count)
        for name, wide in ((b"fc_5.weight", b"\4"), (b"fc_3.weight", b"\2"))
    ]
    return zipped(table(*heads, *items), **{"0": bytes(4 * count)})


def zip_of_one_place() -> bytes:
    """Entries that are all the same 10 MB."""
    data = bytes(10 << 20)
    crc = zlib.crc32(data)
    local = b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, crc, len(data), len(data), 5, 0) + b"a/b/c"
    entries = []
    for i in range(30_000):
        name = b"a/data.pkl" if i == 0 else b"a/data/%d" % i
        entry = b"PK\1\2" + struct.pack(
            "<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, crc, len(data), len(data), len(name), 0, 0, 0, 0, 0, 0
        )
        entries.append(entry + name)
    table = b"".join(entries)
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 30_000, 30_000, len(table), len(local) + len(data), 0)
    return local + data + table + end


def zip_of_many_entries() -> bytes:
    table = (b"PK\1\2" + bytes(42)) * 300_000
    return b"PK\3\4" + bytes(26) + table + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, len(table), 30, 0)


def zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N." + bytes(50 << 20))
    return stream.getvalue()


def zip64(size: int) -> bytes:
    extra = struct.pack("<HHQQ", 1, 16, size, size)
    name = b"a/data.pkl"
    table = (
        b"PK\1\2"
        + struct.pack(
            "<HHHHHHIIIHHHHHII", 45, 45, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, len(name), len(extra), 0, 0, 0, 0, 0
        )
        + name
        + extra
    )
    return b"PK\3\4" + bytes(26) + table + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(table), 30, 0)


def legacy(keys: list[object], count: int) -> bytes:
    parts: list[object] = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    head = b"".join(pickle.dumps(part, 2) for part in parts)
    content = table(tensor(b"fc_5.weight", b"(K\7M\x00\x04t", b"(K\1K\1t"))
    return head + content + pickle.dumps(keys, 2) + struct.pack("<q", count) + bytes(64)


def safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(64)


def one(name: str, shape: object, offsets: object, dtype: str = "F32") -> str:
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


SAFETENSORS = {
    "length_beyond": safetensors(b"{}", 1 << 62),
    "deep": safetensors(b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}"),
    "long_header": safetensors(b"{" + b" " * (20 << 20) + b"}"),
    "many": safetensors(("{" + ",".join(one(f"a{i}", "[0]", "[0,0]") for i in range(60_000)) + "}").encode()),
    "twice": safetensors(
        ("{" + one("fc_5.weight", "[16]", "[0,64]") + "," + one("fc_5.weight", "[8]", "[0,32]") + "}").encode()
    ),
    "overlap": safetensors(("{" + one("a", "[16]", "[0,64]") + "," + one("b", "[16]", "[0,64]") + "}").encode()),
    "overflow": safetensors(("{" + one("fc_5.weight", f"[{2**40},{2**40}]", "[0,64]") + "}").encode()),
    "empty_huge": safetensors(
        ("{" + one("fc_5.weight", f"[0,{2**62}]", "[0,0]") + "," + one("b", "[16]", "[0,64]") + "}").encode()
    ),
    "long_number": safetensors(('{"a":' + "9" * 5000 + "}").encode()),
    "kinds": safetensors(("{" + one("fc_5.weight", "[64,1]", "[0,64]", "F8_E8M0") + "}").encode()),
    "float4": safetensors(("{" + one("fc_5.weight", "[64,2]", "[0,64]", "F4") + "}").encode()),
    "complex": safetensors(("{" + one("fc_5.weight", "[8,1]", "[0,64]", "C64") + "}").encode()),
    "unknown_kind": safetensors(("{" + one("fc_5.weight", "[16]", "[0,64]", "F33") + "}").encode()),
}


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


def objects(program: bytes, shape: str = "(1,)") -> bytes:
    return npy(f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}, }}\n", program)


def array_of(items: bytes, shape: bytes = b"K\1\x85") -> bytes:
    """A pickled array of objects; items: instructions that push the list of them."""
    made = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\1b\x87R"
    kind = b"cnumpy\ndtype\nU\2O8K\0K\1\x87R"
    return made + b"(K\1" + shape + kind + b"\x89" + items + b"tb."


NPY = {
    "shape": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000000), }\n"),
    "shape_0": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 999999999999, 999999999999), }\n"),
    "long_shape": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }\n"),
    "deep_header": npy("(" * 60_000),
    "deep_header_2": npy("[" * 3_000_000, version=2),
    "header_beyond": b"\x93NUMPY\2\0\xff\xff\xff\xff{",
    "records": npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }\n", bytes(8)),
    "no_bytes": npy("{'descr': '|S0', 'fortran_order': False, 'shape': (999999999999,), }\n"),
    "huge_items": npy("{'descr': '<U999999', 'fortran_order': False, 'shape': (999999,), }\n"),
    "bad_text": npy("{'descr': '<U1', 'fortran_order': False, 'shape': (1,), }\n", b"\xff\xff\xff\xff"),
    "memo": objects(PICKLES["memo_index"]),
    "key": objects(PICKLES["key_of_doubled_tuples"]),
    "array_built_often": objects(
        b"\x80\x02]("
        + b"N" * 200_000
        + b"eq\0cnumpy\ndtype\nU\2O8K\0K\1\x87Rq\1"
        + b"cnumpy.core.multiarray\n_reconstruct\n)R(K\1J\x40\x0d\3\0\x85h\1\x89h\0tb0" * 5_000
        + b"N."
    ),
    "wide_dtype": objects(array_of(b"](cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\7U999999K\0K\1\x87RU\1a\x86Re")),
    "shape_of_objects": objects(array_of(b"]", long(1 << 39) + b"\x85")),
}
TARS: dict[str, Callable[[], bytes]] = {}


def header(name: str, size: bytes = b"00000000000\0", kind: bytes = b"0") -> bytes:
    head = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    head[124:136], head[156:157] = size, kind
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 256 + sum(head[156:]))
    return bytes(head)


def pax(record: bytes, after: bytes) -> bytes:
    size = len(record) + 3
    text = b"%d %s\n" % (size + 1 if len(b"%d" % (size + 1)) == 2 else size + 2, record)
    return header("PaxHeader", b"%011o\0" % len(text), b"x") + text.ljust(512, b"\0") + after


def many_values() -> bytes:
    return (b"[" + b"[]," * (LARGEST // 3 - 2) + b"0]").ljust(LARGEST)


def bombed() -> bytes:
    return gzip.compress(header("bundle.json", b"%011o\0" % (100 << 20)) + bytes(100 << 20), 6)


TARS = {
    "negative": lambda: header("a", b"\xff" * 12) + header("bundle.json"),
    "minus_a_block": lambda: header("a", b"-0000001000\0") + header("bundle.json"),
    "minus_in_base_256": lambda: header("a", (-512).to_bytes(12, "big", signed=True)) + header("bundle.json"),
    "huge": lambda: header("bundle.json", b"77777777777\0"),
    "base_256": lambda: header("bundle.json", b"\x80" + b"\x7f" * 11),
    "pax_size": lambda: pax(b"size=99999999999", header("bundle.json")),
    "pax_path": lambda: pax(b"path=../../evil1", header("bundle.json")),
    "pax_sparse": lambda: pax(b"GNU.sparse.size=9", header("bundle.json")),
    "pax_long": lambda: header("PaxHeader", b"77777777777\0", b"x") + header("bundle.json"),
    "longname": lambda: header("././@LongLink", b"%011o\0" % 512, b"L") + b"a" * 512 + header("bundle.json"),
    "link": lambda: header("bundle.json", kind=b"2"),
    "hard_link": lambda: header("bundle.json", kind=b"1"),
    "device": lambda: header("bundle.json", kind=b"3"),
    "fifo": lambda: header("bundle.json", kind=b"6"),
    "sparse": lambda: header("bundle.json", kind=b"S"),
    "many": lambda: header("a") * 20_000,
    "many_folders": lambda: header("a/", kind=b"5") * 20_000,
    "deep_json": lambda: header("bundle.json", b"%011o\0" % 1_000_000) + b"[" * 1_000_448,
    "long_json": lambda: header("bundle.json", b"%011o\0" % (20 << 20)) + b"[" * (20 << 20),
    "long_number": lambda: header("bundle.json", b"%011o\0" % 1_000_000) + b"9" * 1_000_448,
    "many_values": lambda: header("bundle.json", b"%011o\0" % LARGEST) + many_values(),
    "bomb.tar": bombed,
}


def files() -> dict[str, Callable[[], bytes]]:
    """Name of a file -> what gives its bytes."""
    found: dict[str, Callable[[], bytes]] = {f"{name}.pth": lambda p=program: zipped(p) for name, program in PICKLES.items()}
    # In the layout before PyTorch 1.6 the same programs come first.
    found |= {f"{name}_bare.pth": lambda p=program: p for name, program in PICKLES.items()}
    found |= {f"{name}.safetensors": lambda d=data: d for name, data in SAFETENSORS.items()}
    found |= {f"{name}.npy": lambda d=data: d for name, data in NPY.items()}
    found |= {f"{name}.gz" if name == "bomb.tar" else f"{name}.tar": make for name, make in TARS.items()}
    found |= {
        "shared_buffer.pth": shared_buffer,
        "zip_of_one_place.pth": zip_of_one_place,
        "zip_of_many_entries.pth": zip_of_many_entries,
        "zip_bomb.pth": zip_bomb,
        "zip64_huge.pth": lambda: zip64(1 << 62),
        "zip64_of_one_bit_too_many.pth": lambda: zip64((1 << 64) - 1),
        "legacy_negative.pth": lambda: legacy(["0"], -1),
        "legacy_huge.pth": lambda: legacy(["0"], (1 << 62)),
        "legacy_keys.pth": lambda: legacy(["0"] * 200_000, 0),
        "legacy_other_keys.pth": lambda: legacy([[]], 0),
    }
    return found


FILES = files()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("hostile")
    for name, make in FILES.items():
        (folder / name).write_bytes(make())
    result = subprocess.run([sys.executable, str(PROBE), str(folder)], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return {line["name"]: {**line, "size": (folder / line["name"]).stat().st_size} for line in lines}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_in_a_second_and_within_its_size(outcomes: dict[str, dict], name: str) -> None:
    outcome = outcomes[name]
    kind, message = outcome["error"]
    assert kind == "AmpnetError", f"{kind}: {message[:300]}"
    assert name in message and "\n" not in message
    assert len(message) < 600
    assert outcome["seconds"] < SECONDS
    assert outcome["bytes"] < 2 * outcome["size"] + SPARE


def test_the_limits_are_those_that_a_hostile_file_would_break() -> None:
    """The standard library's own reader takes the memory that a memo's index asks for: the cases can fail."""
    script = "import pickle, resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); pickle.loads({!r})"
    found = subprocess.run([sys.executable, "-c", script.format(PICKLES["memo_index"])], capture_output=True, text=True)
    assert "MemoryError" in found.stderr
