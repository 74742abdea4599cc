"""How the faces of a frame are split into inferences."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ampnet_opt.pipeline.pipeline import batch_parts


@given(st.integers(1, 100), st.integers(1, 16))
def test_every_face_is_inferred_once_in_batches_of_fixed_shapes(count: int, at_once: int) -> None:
    parts = batch_parts(count, at_once)
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(count))
    assert {part.stop - part.start for part in parts} <= {1, at_once}
    assert len(parts) == count // at_once + (count % at_once if at_once > 1 else 0)


@given(st.integers(1, 100))
def test_on_a_gpu_all_faces_are_one_batch(count: int) -> None:
    assert batch_parts(count, None) == [slice(0, count)]
