"""The prefix map: where sources lie, and by which names the catalog knows what lies somewhere."""

from hypothesis import given
from hypothesis import strategies as st

from curate.catalog.places import Places, is_under

FOLDERS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
MOVES = st.lists(st.tuples(FOLDERS, FOLDERS).filter(lambda pair: pair[0] != pair[1]), max_size=5)


def moved(uri, moves):
    """Every move in its turn, as people say it: what lies under the old place lies under the new one."""
    for old, new in moves:
        if is_under(uri, old):
            uri = new + uri[len(old) :]
    return uri


@given(MOVES, FOLDERS)
def test_a_source_lies_where_all_moves_in_order_bring_it(moves, folder):
    assert Places(moves).place(folder + "/film.mp4") == moved(folder + "/film.mp4", moves)


@given(MOVES, FOLDERS)
def test_what_lies_at_a_place_has_exactly_the_names_that_moves_bring_there(moves, folder):
    uri, places = folder + "/film.mp4", Places(moves)
    assert uri in places.names(places.place(uri))
    assert all(places.place(name) == uri for name in places.names(uri))


@given(MOVES, st.lists(FOLDERS, min_size=1, max_size=4))
def test_sql_and_python_give_the_same_place(moves, folders):
    import duckdb

    places, uris = Places(moves), [folder + "/film.mp4" for folder in folders]
    found = duckdb.execute(f"SELECT {places.sql('uri')} FROM (SELECT unnest(?) AS uri)", [uris]).fetchall()
    assert [row[0] for row in found] == [places.place(uri) for uri in uris]


def test_a_prefix_ends_at_a_slash():
    places = Places([("/data/a", "s3://bucket/x")])
    assert places.place("/data/a/film.mp4") == "s3://bucket/x/film.mp4"
    assert places.place("/data/a") == "s3://bucket/x"
    assert places.place("/data/ab/film.mp4") == "/data/ab/film.mp4"
    assert places.names("s3://bucket/x/new.mp4")[0] == "/data/a/new.mp4"
    assert places.names("/data/a/film.mp4") == [], "nothing lies there any more"


def test_names_that_are_no_utf8_move_with_their_folder():
    places = Places([("/data/a", "/data/b")])
    assert places.place("file:///data/a/%FF.mp4") == "file:///data/b/%FF.mp4"


def test_all_spellings_of_a_linked_folder_give_the_same_names_in_the_same_order():
    places = Places(links={"/link": "/real/folder"})
    assert places.names("/link/film.mp4") == places.names("/real/folder/film.mp4")
    assert set(places.names("/link/film.mp4")) == {"/link/film.mp4", "/real/folder/film.mp4"}
    assert places.names("/linked/film.mp4") == ["/linked/film.mp4"]
