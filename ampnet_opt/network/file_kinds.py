"""What a file is that was given for a checkpoint and is none, by its first bytes, and what to do with it."""

from __future__ import annotations

import re

from ampnet_opt.core.text import one_line

# Of a file's first bytes, and the rest of a sentence that begins with its name.
SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "is compressed with gzip: unpack it with gunzip, and give the file that comes out"),
    (b"BZh", "is compressed with bzip2: unpack it with bunzip2, and give the file that comes out"),
    (b"\xfd7zXZ\0", "is compressed with xz: unpack it with unxz, and give the file that comes out"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: unpack it with unzstd, and give the file that comes out"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive: unpack it, and give the checkpoint that it holds"),
    (b"Rar!", "is a RAR archive: unpack it, and give the checkpoint that it holds"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras and TensorFlow write them; a PyTorch checkpoint is needed"),
    (b"\x89PNG\r\n\x1a\n", "is a picture (PNG), not a PyTorch checkpoint"),
    (b"\xff\xd8\xff", "is a picture (JPEG), not a PyTorch checkpoint"),
    (b"%PDF", "is a PDF document, not a PyTorch checkpoint"),
    (b"\x93NUMPY", "is a NumPy array, not a PyTorch checkpoint"),
    (b"\x7fELF", "is a program, not a PyTorch checkpoint"),
    (b"GGUF", "is a GGUF file, not a PyTorch checkpoint"),
)
LFS = b"version https://git-lfs.github.com/spec/"
HTML = re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype html|html|head|\?xml)", re.IGNORECASE | re.DOTALL)
# An ONNX model: field 1, the version of the format, then field 2, the name of what wrote it (onnx.proto3).
ONNX = re.compile(rb"\x08[\x01-\x20]\x12.[\x20-\x7e]", re.DOTALL)


def kind_of(head: bytes) -> str:
    """What the file with these first bytes is, as the rest of a sentence that begins with its name; "" when unknown."""
    for signature, what in SIGNATURES:
        if head.startswith(signature):
            return what
    if head.startswith(LFS):
        return "is a pointer of Git LFS, not the file that it stands for: fetch that with git lfs pull"
    if HTML.match(head[:4096]):
        return f"is a web page, not a PyTorch checkpoint{_title(head)}: the download was refused; fetch it in a browser"
    if ONNX.match(head):
        return "is an ONNX model: engines are built from the PyTorch checkpoint that it was exported from"
    if head[257:262] == b"ustar":
        return "is a tar file, but no bundle: unpack it with tar -xf, and give the checkpoint that it holds"
    if head[:2] == b"\x80\x02" or head[:2] == b"\x80\x04":
        return "is not a PyTorch checkpoint: it is a pickle that torch.save did not write"
    return ""


def _title(head: bytes) -> str:
    found = re.search(rb"<title>([^<]{1,200})", head[:4096], re.IGNORECASE)
    return f" ({one_line(found[1].decode('utf-8', 'replace'), 60)})" if found else ""
