import pathlib

import pytest

from facejax.datasets import get_dataset, list_datasets
from facejax.datasets.options import parse_options


@pytest.mark.parametrize(
    ("name", "texts", "expected"),
    [
        ("vggface2", {"validation": "0.05", "seed": "3"}, {"validation": 0.05, "seed": 3}),
        ("fer2013", {"ferplus": "yes"}, {"ferplus": True}),
        ("fer2013", {"ferplus": "False"}, {"ferplus": False}),
        ("adience", {"test_fold": "4"}, {"test_fold": 4}),
        ("adience", {"test_fold": "none"}, {"test_fold": None}),
        ("utkface", {"ages": "21, 60", "release": "wild"}, {"ages": (21, 60), "release": "wild"}),
        ("lfw", {"subjects": "a/b.txt"}, {"subjects": pathlib.Path("a/b.txt")}),
        ("ytf", {"subjects": "a/b.txt"}, {"subjects": pathlib.Path("a/b.txt")}),
        ("afew", {}, {}),
    ],
)
def test_texts_become_what_the_reader_declares(name, texts, expected):
    assert parse_options(get_dataset(name), texts) == expected


@pytest.mark.parametrize(
    ("name", "texts", "message"),
    [
        ("vggface2", {"seeds": "3"}, "no option 'seeds'; did you mean 'seed'.*seed, validation"),
        ("imdb_wiki", {"min_score": "nan"}, "option min_score='nan' is not float"),
        ("raf_db", {"raw": "x"}, "no option 'raw'.*There are: none"),
        ("vggface2", {"seed": "three"}, "seed='three' is not int"),
        ("fer2013", {"ferplus": "maybe"}, "ferplus='maybe' is not bool"),
        ("utkface", {"ages": "21"}, "ages='21' is not tuple"),
        ("utkface", {"release": "crops"}, "release='crops' is not .*aligned.*wild"),
    ],
)
def test_what_is_no_option_or_no_value_is_refused(name, texts, message):
    with pytest.raises(ValueError, match=message):
        parse_options(get_dataset(name), texts)


@pytest.mark.parametrize("name", list_datasets())
def test_every_reader_accepts_no_options(name):
    assert parse_options(get_dataset(name), {}) == {}
