"""Valid files, changed: in their bytes, and in what they are made of."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from fuzz_targets import bundle_members, tar_of
from hypothesis import strategies as st

INTERESTING = [
    b"",
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80",
    b"\n",
    b'"',
    b"[",
    b"{",
    b"-1",
    b"9" * 30,
]
# Pickles in opcodes: memo indices, long numbers, deep containers, calls, and strings that end nowhere.
OPCODES = [b"r\xff\xff\xff\x7f", b"p4294967295\n", b"\x8a\xff" + b"\xff" * 255, b"(" * 200, b"]" * 200, b"R", b"b", b"\x8d"]
OPCODES += [
    b"cos\nsystem\n",
    b"X\xff\xff\xff\x7f",
    b"}",
    b"s",
    b"t",
    b"\x85" * 100,
    b"2" * 100,
    b"0" * 10,
    b".",
    b"Q",
    b"\x94",
]
TEXTS = ["", " ", "\x1b[31mred\x1b[0m", "a\rb", "\u202egnp", "\ud800", "[red]x", "[/]", ":fear:", "=1+1", "x" * 1000]
TEXTS += ["../x", "/dev/zero", "a\0b", "a\nb", "n" * 300, "cpu", "int8", "fp16", "é", "\ufeff"]
NUMBERS: list[Any] = [0, 1, -1, 5, 2**31, 2**63, 10**30, 10**400, 0.0, -0.5, 1e308, float("nan"), float("inf"), 1e-320]


def small_changes(data: bytes, tokens: list[bytes] = INTERESTING) -> st.SearchStrategy[bytes]:
    """`data` with one to six places overwritten, cut out, doubled, or with something put in; or its beginning alone."""
    place = st.integers(0, max(0, len(data) - 1))
    kind = st.sampled_from(["put", "insert", "cut", "double", "end", "byte"])
    token = st.one_of(st.sampled_from(tokens), st.binary(max_size=8))
    change = st.tuples(kind, place, st.integers(1, 64), token)

    def apply(changes: list[tuple[str, int, int, bytes]]) -> bytes:
        found = bytearray(data)
        for what, start, length, new in changes:
            if what == "put":
                found[start : start + len(new)] = new
            elif what == "insert":
                found[start:start] = new
            elif what == "cut":
                del found[start : start + length]
            elif what == "double":
                found[start:start] = found[start : start + length]
            elif what == "end":
                del found[start:]
            elif start < len(found):
                found[start] ^= length
        return bytes(found)

    return st.lists(change, min_size=1, max_size=6).map(apply)


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):  # json.dumps has a limit of its own
        value = [value]
    return value


# Made once: a strategy is costly to make, and cheap to draw from.
LEAVES = st.sampled_from([None, True, False, *NUMBERS, *TEXTS])
KEYS = st.sampled_from([*TEXTS, "name", "format", "list", "precision"])
VALUES = st.one_of(
    LEAVES,
    LEAVES,
    st.text(max_size=8),
    st.lists(LEAVES, max_size=3),
    st.dictionaries(KEYS, LEAVES, max_size=2),
    st.integers(1, 100).map(_nested),
)
ACTIONS = st.sampled_from(["replace", "replace", "remove", "add", "move"])
CHANGES = st.integers(1, 3)
INDEX = st.integers(0, 1 << 20)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a JSON value, as keys and indices from the outside in."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


@st.composite
def json_values(draw: st.DrawFn, valid: Any) -> Any:
    """`valid` with one to three things in it replaced, taken away, renamed, or moved to where others were."""
    value = json.loads(json.dumps(valid))
    for _ in range(draw(CHANGES)):
        path = _any(draw, places(value))
        if not path:
            continue
        holder = _at(value, path[:-1])
        action = draw(ACTIONS)
        if action == "remove":
            del holder[path[-1]]
        elif action == "move":
            holder[path[-1]] = json.loads(json.dumps(_at(value, _any(draw, places(value)))))
        elif action == "add" and isinstance(holder, dict):
            holder[draw(KEYS)] = draw(VALUES)
        elif action == "add":
            holder.append(draw(VALUES))
        else:
            holder[path[-1]] = draw(VALUES)
    return value


def _any(draw: st.DrawFn, found: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return found[draw(INDEX) % len(found)]


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def json_files(data: bytes) -> st.SearchStrategy[bytes]:
    structured = json_values(json.loads(data)).map(lambda value: json.dumps(value).encode())
    encoded = st.sampled_from(["utf-16", "utf-8-sig", "utf-32", "utf-16-be"]).map(lambda code: data.decode().encode(code))
    deep = st.integers(1, 100_000).map(lambda depth: b"[" * depth)
    digits = st.integers(1, 6000).map(lambda count: b'{"format": ' + b"9" * count + b"}")
    return st.one_of(structured, structured, structured, small_changes(data), encoded, deep, digits)


def line_files(data: bytes) -> st.SearchStrategy[bytes]:
    """JSON in lines, of which one is changed."""
    lines = data.splitlines()

    def put(change: tuple[int, bytes]) -> bytes:
        return b"\n".join([*lines[: change[0]], change[1].replace(b"\n", b" "), *lines[change[0] + 1 :]]) + b"\n"

    one = st.integers(0, len(lines) - 1).flatmap(lambda i: st.tuples(st.just(i), json_files(lines[i])))
    return st.one_of(one.map(put), small_changes(data))


def csv_files(data: bytes) -> st.SearchStrategy[bytes]:
    rows = [line.split(",") for line in data.decode().splitlines()]
    texts = [*TEXTS, "nan", "inf", "1e400", "-1", "9" * 5000, "x" * 140_000, '"', '""', "a,b", "../../0.png", "0.png"]
    cell = st.one_of(st.sampled_from(texts), st.text(max_size=6))
    change = st.tuples(st.integers(0, len(rows) - 1), st.integers(0, len(rows[0]) - 1), cell)

    def apply(changes: list[tuple[int, int, str]], separator: str, end: str) -> bytes:
        found = [list(row) for row in rows]
        for i, j, text in changes:
            found[i][j] = text
        return (end.join(separator.join(row) for row in found) + end).encode("utf-8", "surrogatepass")

    separators, ends = st.sampled_from([",", ",", ",", ";", "\t"]), st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"])
    return st.one_of(st.builds(apply, st.lists(change, min_size=1, max_size=3), separators, ends), small_changes(data))


def tar_files(data: bytes) -> st.SearchStrategy[bytes]:
    members = bundle_members()
    fields = st.one_of(
        st.tuples(st.just("size"), st.sampled_from([0, 1, 511, 512, 10**6, 2**40])),
        st.tuples(st.just("type"), st.sampled_from(list(b"01234567SLKxgDX")).map(lambda code: bytes([code]))),
        st.tuples(st.just("name"), st.sampled_from([text for text in TEXTS if "\ud800" not in text])),
        st.tuples(st.just("linkname"), st.sampled_from(["/etc/passwd", "bundle.json", ".."])),
        st.tuples(st.just("pax_headers"), st.sampled_from([{"path": "/x"}, {"size": "-1"}, {"GNU.sparse.major": "1"}])),
    )
    change = st.tuples(st.sampled_from(list(members)), fields)

    def apply(changes: list[tuple[str, tuple[str, Any]]]) -> bytes:
        headers: dict[str, dict[str, Any]] = {}
        for name, (key, value) in changes:
            headers.setdefault(name, {})[key] = value
        return tar_of(members, headers)

    # The checksums of headers are 8 digits at 148 of each block: what is overwritten in a size is found out by them alone.
    head = small_changes(data[:1024]).map(lambda start: start + data[1024:])
    return st.one_of(st.lists(change, min_size=1, max_size=3).map(apply), head, small_changes(data))


def safetensors_files(data: bytes) -> st.SearchStrategy[bytes]:
    size = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    about = header["__metadata__"]

    def whole(head: bytes) -> bytes:
        return len(head).to_bytes(8, "little") + head + rest

    def with_text(change: tuple[str, bytes]) -> bytes:
        changed = {**header, "__metadata__": {**about, change[0]: change[1].decode("utf-8", "replace")}}
        return whole(json.dumps(changed).encode())

    key = st.sampled_from([key for key in about if key != "format"])
    texts = key.flatmap(lambda name: st.tuples(st.just(name), json_files(about[name].encode())))
    heads = json_values(header).map(lambda value: whole(json.dumps(value).encode()))
    return st.one_of(texts.map(with_text), heads, small_changes(data))


def pickle_files(data: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(small_changes(data, OPCODES), small_changes(data))


def zip_files(data: bytes) -> st.SearchStrategy[bytes]:
    """A zip whose bytes are changed, or the members in it, with checksums that are right again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def packed(change: tuple[str, bytes, int]) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", change[2]) as archive:
            for name, content in {**members, change[0]: change[1]}.items():
                archive.writestr(name, content)
        return stream.getvalue()

    name = st.sampled_from(list(members))
    content = name.flatmap(lambda one: st.tuples(st.just(one), pickle_files(members[one]), st.sampled_from([0, 8])))
    return st.one_of(content.map(packed), small_changes(data))


STRATEGIES = {
    "json": json_files,
    "lines": line_files,
    "csv": csv_files,
    "tar": tar_files,
    "safetensors": safetensors_files,
    "pickle": pickle_files,
    "zip": zip_files,
    "": small_changes,
}
