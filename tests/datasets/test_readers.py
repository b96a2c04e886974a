"""Every registered reader: is it described, does it have a miniature, does it survive damaged and hostile files?"""

import json
import logging
import pathlib
import pickle
import random
import re

import miniatures
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facejax.data.records import Record
from facejax.datasets import get_dataset, list_datasets
from facejax.datasets.layout import LOGGED_PER_REASON, MAX_LINE, Skips, lines, parse_float, parse_int
from facejax.datasets.prepare import prepare_dataset
from facejax.tasks import TASKS

# These two have real or made photos of their own; their tests are test_facial_expressions.py and test_people.py.
TESTED_ELSEWHERE = {"people", "facial_expressions"}
READ_HERE = sorted(miniatures.MINIATURES)
SPLITS = {"train", "validation", "test"}


def read(name: str, raw: pathlib.Path, **options) -> list[Record]:
    reader = get_dataset(name)
    return list(reader.clips(raw, **options) if reader.kind == "video" else reader.records(raw, **options))


def test_no_reader_lacks_a_miniature():
    assert set(list_datasets()) - TESTED_ELSEWHERE == set(READ_HERE)


@pytest.mark.parametrize("name", [*READ_HERE, "facial_expressions"])
def test_no_reader_lacks_its_own_test_and_a_section_in_the_register(name):
    assert (pathlib.Path(__file__).parent / f"test_{name}.py").is_file()
    register = pathlib.Path(__file__).parents[2].joinpath("docs/datasets.md").read_text()
    assert re.search(rf"^## .*`{name}`", register, re.MULTILINE)


@pytest.mark.parametrize("name", sorted({*READ_HERE, *list_datasets()}))
def test_it_is_described(name):
    reader = get_dataset(name)
    assert reader.name == name
    assert len(reader.description) > 20
    assert len(reader.licence) > 3
    assert reader.url.startswith(("http://", "https://")) or name == "people"
    assert set(reader.tasks) <= set(TASKS)
    assert set(reader.expected_counts) <= SPLITS
    assert all(count is None or count > 0 for count in reader.expected_counts.values())
    assert type(reader).__doc__


@pytest.mark.parametrize("name", READ_HERE)
def test_records_of_the_miniature(name, tmp_path):
    miniatures.MINIATURES[name](tmp_path)
    reader, records = get_dataset(name), read(name, tmp_path)
    assert len({record.id for record in records}) == len(records) > 0
    assert {record.split for record in records} <= set(reader.expected_counts)
    assert [vars(a).keys() for a in records] == [vars(b).keys() for b in read(name, tmp_path)]
    assert [record.id for record in records] == [record.id for record in read(name, tmp_path)]
    for record in records:
        check(record, tmp_path)
        if isinstance(record.image, pathlib.Path):
            assert record.image.is_file()
            assert record.id == record.image.relative_to(tmp_path).as_posix()[-len(record.id) :]
        else:
            image = pickle.loads(pickle.dumps(record.image))()
            assert image.dtype == np.uint8
            assert image.shape[2] == 3
    for task in (TASKS[name] for name in reader.tasks):
        assert any(task.label_key in record.labels for record in records), task.name


def check(record: Record, root: pathlib.Path) -> None:
    """What holds for every record, whatever the files say."""
    assert record.split in SPLITS
    record.id.encode()
    assert record.id.isprintable()
    assert not record.id.startswith("/")
    assert ".." not in pathlib.PurePosixPath(record.id).parts
    if isinstance(record.image, pathlib.Path):
        assert record.image.resolve().is_relative_to(root.resolve())
    sizes = {task.label_key: len(TASKS[task.name].labels) for task in TASKS.values() if task.kind == "categorical"}
    for key, value in record.labels.items():
        if key in ("emotion", "ethnicity"):
            assert 0 <= value < {"emotion": 8, "ethnicity": sizes["ethnicity"]}[key]
        elif key == "gender":
            assert value in (0, 1)
        elif key == "age":
            assert 0 <= value <= 999
        elif key == "valence_arousal":
            assert all(-1 <= number <= 1 for number in value)
        elif isinstance(value, str):
            value.encode()
    if record.bbox is not None:
        assert len(record.bbox) == 4
        assert np.isfinite(record.bbox).all()
    if record.landmarks is not None:
        assert record.landmarks.ndim == 2
        assert record.landmarks.shape[1] == 2
        assert np.isfinite(record.landmarks).all()


@pytest.mark.parametrize("name", ["imdb_wiki", "vggface2"])
@pytest.mark.parametrize("validation", [10.0, -0.1, float("nan")])
def test_a_part_that_is_none_is_refused(name, validation, tmp_path):
    with pytest.raises(ValueError, match="validation must be a fraction from 0 to 1"):
        read(name, tmp_path, validation=validation)


@pytest.mark.parametrize("name", [name for name in READ_HERE if get_dataset(name).kind == "photo"])
def test_the_miniature_is_prepared_with_all_its_labels(name, tmp_path):
    miniatures.MINIATURES[name](tmp_path / "raw")
    records = read(name, tmp_path / "raw")
    crop = "annotation" if get_dataset(name).default_crop == "annotation" else "none"
    folder = prepare_dataset(name, tmp_path / "raw", tmp_path / "out", crop, workers=1, log=lambda line: None)
    summary = json.loads((folder / "summary.json").read_text())
    assert {split: total["faces"] for split, total in summary["splits"].items()} == {
        split: sum(record.split == split for record in records) for split in {record.split for record in records}
    }
    assert set(json.loads((folder / "features.json").read_text())["featuresDict"]["features"]) >= {
        key for record in records for key in record.labels
    }


@pytest.mark.parametrize("name", READ_HERE)
def test_a_wrong_folder_is_refused_with_help(name, tmp_path):
    for raw in (None, tmp_path / "absent", tmp_path):
        with pytest.raises(FileNotFoundError, match=rf"{name}.*docs/datasets\.md"):
            read(name, raw)


HOSTILE_TEXT = [
    "../../../../etc/passwd",
    "/etc/passwd",
    "a/./b.jpg",
    "C:\\x.jpg",
    "\\\\server\\share\\x.jpg",
    "x\0y.jpg",
    "\x1b[2J.jpg",
    "\u202egpj.exe",
    "n" * 5000,
    "a/" * 3000,
    "nan",
    "inf",
    "-1",
    "1e400",
    "9" * 5000,
    "\u0663",
    "1_0",
    '"',
    '"unclosed',
    "",
    " ",
    ",",
    ";" * 200,
    "\t",
    "None",
    "=cmd|'/c calc'!A1",
    "\ud800",
]
SIZES = [0, 1, 2, 6, 50, 127, 128, 200]
ENCODINGS = ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp037"]


def damage(root: pathlib.Path, choose: random.Random) -> None:
    """Truncates, cuts, shuffles, re-encodes, overwrites, renames or removes a few files of a dataset."""
    for _ in range(choose.randint(1, 4)):
        # Tables and annotations are few compared with the photos, but they are what is parsed.
        files = sorted(path for path in root.rglob("*") if path.is_file())
        if not files:
            return
        tables = [path for path in files if path.suffix in (".csv", ".txt", ".mat", ".npy")]
        path = choose.choice(tables if tables and choose.random() < 0.8 else files)
        content = path.read_bytes()
        match choose.randrange(10):
            case 0:
                path.write_bytes(content[: choose.choice([*SIZES, len(content) // 2, max(len(content) - 1, 0)])])
            case 1:
                flipped = bytearray(content)
                for _ in range(choose.randint(1, 20) if flipped else 0):
                    flipped[choose.randrange(len(flipped))] = choose.randrange(256)
                path.write_bytes(bytes(flipped))
            case 2:
                text = content.decode(errors="replace")
                path.write_bytes(text.encode(choose.choice(ENCODINGS), errors="replace"))
            case 3 | 4 | 5:
                text = content.decode("utf-8", errors="surrogateescape")
                cells = re.split(r"([,\t;\n ])", text)
                for _ in range(choose.randint(1, 3)):
                    cells[choose.randrange(len(cells))] = choose.choice(HOSTILE_TEXT)
                path.write_bytes("".join(cells).encode(errors="surrogatepass"))
            case 6:
                rows = content.split(b"\n")
                choose.shuffle(rows)
                path.write_bytes(b"\n".join(rows))
            case 7:
                path.unlink()
                if choose.random() < 0.5:
                    path.mkdir()
            case 8:
                broken = choose.choice(
                    [b"x" * 250, b"\xff\xfe", b"..jpg", b"a\nb.jpg", b" ", b"0_0_0_1.jpg", b".hidden"]
                )
                target = bytes(path.parent) + b"/" + broken
                if not pathlib.Path(target.decode(errors="surrogateescape")).exists():
                    path.rename(pathlib.Path(target.decode(errors="surrogateescape")))
            case 9:
                folder = path.parent
                if folder != root and not folder.with_name(folder.name + "x").exists():
                    folder.rename(folder.with_name(folder.name + "x"))


OPTIONS = {"fer2013": [{}, {"ferplus": True}], "adience": [{}, {"test_fold": 1}], "utkface": [{}, {"release": "wild"}]}
VARIANTS = {
    "affectnet": [miniatures.affectnet, miniatures.affectnet_2021],
    "utkface": [miniatures.utkface, lambda root: (miniatures.utkface(root), miniatures.utkface_wild(root))],
}


@pytest.mark.parametrize("name", READ_HERE)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_damaged_files_cost_rows_or_give_a_clear_error(name, seed, tmp_path_factory):
    root = tmp_path_factory.mktemp(name)
    choose = random.Random(seed)
    choose.choice(VARIANTS.get(name, [miniatures.MINIATURES[name]]))(root)
    damage(root, choose)
    records, refusal = [], None
    try:
        records = read(name, root, **choose.choice(OPTIONS.get(name, [{}])))
    except (ValueError, FileNotFoundError) as error:
        refusal = error
    # A subclass, such as UnicodeDecodeError, would be an accident.
    assert type(refusal) in (type(None), ValueError, FileNotFoundError)
    assert refusal is None or len(str(refusal)) > 30
    for record in records:
        check(record, root)
    for reason, places in get_dataset(name).skipped.items():
        assert 5 < len(reason) < 80
        assert all(place.isascii() and place.isprintable() and len(place) < 2500 for place in places)


@pytest.mark.parametrize(
    ("name", "table", "separator"),
    [
        ("affectnet", "Manually_Annotated_file_lists/training.csv", ","),
        ("adience", "fold_0_data.txt", "\t"),
        ("vgaf", "Train_labels.txt", " "),
        ("raf_db", "basic/EmoLabel/list_patition_label.txt", " "),
        ("ytf", "frame_images_DB/Richard_Gere.labeled_faces.txt", ","),
        ("fer2013", "fer2013.csv", ","),
        ("vggface2", "meta/identity_meta.csv", ","),
        ("vggface2", "bb_landmark/loose_bb_test.csv", ","),
    ],
)
def test_rows_with_hostile_cells_cost_no_other_row(name, table, separator, tmp_path):
    """Each hostile text in each cell of a good row: such rows are skipped or harmless, and nothing is raised."""
    miniatures.MINIATURES[name](tmp_path)
    before = {record.id for record in read(name, tmp_path)}
    path = tmp_path / table
    good = path.read_text().splitlines()[-1].split(separator)
    for position in range(len(good)):
        rows = [separator.join([*good[:position], text, *good[position + 1 :]]) for text in HOSTILE_TEXT]
        with path.open("ab") as file:
            file.writelines(row.encode(errors="surrogatepass") + b"\n" for row in rows)
    records = read(name, tmp_path)
    assert before <= {record.id for record in records}
    for record in records:
        check(record, tmp_path)
    # Most added rows are skipped; those accepted are rows whose changed cell does not matter.
    noted = get_dataset(name).skipped.values()
    assert sum(map(len, noted)) > len(HOSTILE_TEXT)


def test_skips_are_counted_in_full_and_logged_in_part(caplog):
    reader = get_dataset("raf_db")
    skip = Skips(reader)
    with caplog.at_level(logging.WARNING):
        for i in range(LOGGED_PER_REASON + 5):
            skip("malformed row", f"list.txt:{i}\n\x1b[2J")
    assert len(reader.skipped["malformed row"]) == LOGGED_PER_REASON + 5
    assert len(caplog.messages) == LOGGED_PER_REASON + 1
    assert caplog.messages[0] == "raf_db: list.txt:0\\n\\x1b[2J: malformed row"
    Skips(reader)
    assert reader.skipped == {}


def test_a_line_without_end_is_passed_over(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("first\n" + "x" * (3 * MAX_LINE + 7) + "\nlast")
    skip = Skips(get_dataset("raf_db"))
    assert list(lines(path, skip)) == [("list.txt:1", "first"), ("list.txt:3", "last")]
    assert get_dataset("raf_db").skipped == {"line is too long": ["list.txt:2"]}


@given(
    st.one_of(st.text("0123456789+-.eE_ ٣²naif", max_size=12), st.integers(-999, 10**10).map(str), st.floats().map(str))
)
def test_numbers_are_read_as_python_does_or_not_at_all(text):
    if (number := parse_int(text)) is not None:
        assert number == int(text)
        assert text.isascii()
        assert text.isdigit()
    if (number := parse_float(text)) is not None:
        assert number == float(text)
        assert abs(number) <= 1e9


@given(st.integers(0, 10**9 - 1), st.floats(-1e9, 1e9).map(lambda x: f"{x:.6f}"))
def test_plain_numbers_are_read(integer, real):
    assert parse_int(str(integer)) == integer
    assert parse_float(real) == float(real)
