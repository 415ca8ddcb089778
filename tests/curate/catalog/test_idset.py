import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curate.catalog.idset import IdSet, pack, pack_column

ids = st.lists(st.integers(0, 2**128 - 1) | st.integers(0, 40) | st.integers(0, 40).map(lambda n: (7 << 64) | n))


@given(st.lists(ids, max_size=8))
def test_an_idset_is_a_set(batches):
    real: set[int] = set()
    mine = IdSet()
    for batch in batches:
        new = mine.add(pack([f"{number:032x}" for number in batch]))
        for number, is_new in zip(batch, new, strict=True):
            assert is_new == (number not in real)
            real.add(number)
        assert len(mine) == len(real)
    for number in [*real, 1, 2**127]:
        assert mine.contains(pack([f"{number:032x}"]))[0] == (number in real)


@given(st.lists(st.integers(0, 2**128 - 1), max_size=9), st.integers(0, 9), st.integers(0, 9))
def test_a_column_is_packed_as_a_list_is_wherever_it_begins(numbers, start, split):
    texts = [f"{number:032x}" for number in numbers]
    column = pa.chunked_array([texts[:split], texts[split:]], pa.string()).slice(start)
    assert pack_column(column).tolist() == pack(texts[start:]).tolist()
