"""Small copies of the published datasets, byte for byte in their formats: names, columns, encodings, oddities.

Each builder fills a folder and is registered under the dataset's name in `MINIATURES`; its contents are spelt out so
that the tests can name each row. Photos are grey JPEGs, just large enough for the boxes; clips are a few bytes.
"""

import functools
import io
import pathlib
import tempfile

import cv2
import numpy as np
import scipy.io

MINIATURES = {}


def miniature(build):
    MINIATURES[build.__name__] = build
    return build


def write(root: pathlib.Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@functools.cache
def jpeg(side: int) -> bytes:
    return cv2.imencode(".jpg", np.full((side, side, 3), 127, np.uint8))[1].tobytes()


def photos(root: pathlib.Path, *names: str, side: int = 8) -> None:
    write(root, dict.fromkeys(names, jpeg(side)))


@miniature
def vggface2(root):
    for class_id, half, count in (
        ("n000001", "test", 20),
        ("n000002", "train", 10),
        ("n000009", "test", 2),
        ("n000023", "train", 1),
    ):
        photos(root, *(f"{half}/{class_id}/{i:04d}_{1 + i % 2:02d}.jpg" for i in range(1, count + 1)), side=400)
    write(
        root,
        {
            # As published: a space before the quote, a trailing comma, and a name with a comma, where that is missing.
            "meta/identity_meta.csv": (
                "Class_ID, Name, Sample_Num, Flag, Gender,\n"
                'n000001, "14th_Dalai_Lama",424,0, m,\n'
                'n000002, "A_Fine_Frenzy",315,1, f,\n'
                'n000009, "Kemi_Adetiba,_Director",136,0, f\n'
                'n000023, "Aarón_Díaz",398,1, m,\n'
            ),
            "bb_landmark/loose_bb_test.csv": (
                'NAME_ID,X,Y,W,H\n"n000001/0001_02",60,60,79,109\n"n000001/0002_01",134,-8,207,295\n'
                '"n000009/0001_02",1,2,3,4\n'
            ),
            "bb_landmark/loose_bb_train.csv": 'NAME_ID,X,Y,W,H\n"n000002/0001_02",161,140,224,324\n',
            "bb_landmark/loose_landmark_test.csv": (
                "NAME_ID,P1X,P1Y,P2X,P2Y,P3X,P3Y,P4X,P4Y,P5X,P5Y\n"
                '"n000001/0001_02",75.81253,110.2077,103.1778,104.6074,90.44,124.3,81.6,141.5,107.2,136.8\n'
            ),
            "bb_landmark/loose_landmark_train.csv": "NAME_ID,P1X,P1Y,P2X,P2Y,P3X,P3Y,P4X,P4Y,P5X,P5Y\n",
        },
    )


def matlab_datenum(year: int, month: int, day: int) -> float:
    """Days as Matlab counts them, by the calendar's rules and not by Python's datetime."""
    days = [31, 28 + (year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    before = year - 1
    # Year 0 is a leap year of 366 days.
    return float(366 + 365 * before + before // 4 - before // 100 + before // 400 + sum(days[: month - 1]) + day)


# path, dob, year taken, gender, name, score, second score; as the .mat files have them
IMDB_ROWS = (
    ("01/nm0000001_rm124825600_1899-5-10_1968.jpg", (1899, 5, 10), 1968, 1.0, "Fred Astaire", 1.4597, np.nan),
    ("01/nm0000001_rm3343756032_1899-5-10_1970.jpg", (1899, 5, 10), 1970, 1.0, "Fred Astaire", 2.5432, np.nan),
    ("02/nm0000002_rm1_1924-9-16_2004.jpg", (1924, 9, 16), 2004, 0.0, "Lauren Bacall", 3.4, np.nan),
    ("02/nm0000002_rm2_1924-9-16_1991.jpg", (1924, 9, 16), 1991, 0.0, "Lauren Bacall", 0.4, np.nan),
    ("02/nm0000002_rm3_1924-9-16_1992.jpg", (1924, 9, 16), 1992, 0.0, "Lauren Bacall", 4.4, 2.1),
    ("03/nm0000003_rm4_1934-9-28_1974.jpg", (1934, 9, 28), 1974, np.nan, "Brigitte Bardot", 4.4, np.nan),
    ("03/nm0000003_rm5_1934-9-28_1975.jpg", (1934, 9, 28), 1975, 0.0, "Brigitte Bardot", -np.inf, np.nan),
    ("04/nm0000004_rm6_0-0-0_1975.jpg", (0, 0, 0), 1975, 1.0, "John Belushi", 3.0, np.nan),
    ("04/nm0000004_rm7_1949-1-24_1930.jpg", (1949, 1, 24), 1930, 1.0, "John Belushi", 3.0, np.nan),
)
WIKI_ROWS = (("17/10000217_1981-05-05_2009.jpg", (1981, 5, 5), 2009, 1.0, "Sami Jauhojärvi", 4.3009, np.nan),)


def _matlab_cells(values) -> np.ndarray:
    cells = np.empty((1, len(values)), object)
    for i, value in enumerate(values):
        cells[0, i] = value
    return cells


def _write_mat(root: pathlib.Path, source: str, table) -> None:
    paths, births, years, genders, names, scores, seconds = zip(*table, strict=True)
    struct = {
        "dob": np.array([[matlab_datenum(*birth) if birth[0] else 47.0 for birth in births]]),
        "photo_taken": np.array([years], np.uint16),
        "full_path": _matlab_cells(paths),
        "gender": np.array([genders]),
        "name": _matlab_cells(names),
        "face_location": _matlab_cells([np.array([[11.5, 21.0, 31.0, 41.5]]) for _ in paths]),
        "face_score": np.array([scores]),
        "second_face_score": np.array([seconds]),
    }
    if source == "imdb":
        struct["celeb_names"] = _matlab_cells(sorted(set(names)))
        struct["celeb_id"] = np.ones((1, len(names)))
    root.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(root / f"{source}.mat", {source: struct}, do_compression=True)
    photos(root, *paths)


@miniature
def imdb_wiki(root):
    _write_mat(root / "imdb_crop", "imdb", IMDB_ROWS)
    _write_mat(root / "wiki_crop", "wiki", WIKI_ROWS)


ADIENCE_HEADER = (
    "user_id\toriginal_image\tface_id\tage\tgender\tx\ty\tdx\tdy\ttilt_ang\tfiducial_yaw_angle\tfiducial_score"
)
ADIENCE_FOLDS = (
    (
        ("30601258@N03", "10399646885_67c7d20df9_o.jpg", 1, "(25, 32)", "f"),
        ("30601258@N03", "10424815813_e94629b1ec_o.jpg", 2, "(60, 100)", "m"),
    ),
    (("7153718@N04", "11597935265_29bcdfa4a5_o.jpg", 2282, "(0, 2)", "u"), ("7153718@N04", "a.jpg", 3, "None", "m")),
    (("7285955@N06", "10524078416_6a401de320_o.jpg", 2052, "35", ""), ("7285955@N06", "b.jpg", 4, "None", "u")),
    (("9855553@N08", "11597935266_29bcdfa4a6_o.jpg", 2283, "(8, 23)", "m"),),
    (("9855553@N08", "c.jpg", 5, "(38, 48)", "f"), ("9855553@N08", "d.jpg", 6, "", "f")),
)


@miniature
def adience(root):
    for fold, table in enumerate(ADIENCE_FOLDS):
        lines = [ADIENCE_HEADER]
        for user, image, face, age, gender in table:
            lines.append(f"{user}\t{image}\t{face}\t{age}\t{gender}\t0\t414\t1086\t1383\t-115\t30\t17")
            photos(root, f"aligned/{user}/landmark_aligned_face.{face}.{image}")
        write(root, {f"fold_{fold}_data.txt": "\n".join(lines) + "\n"})


@miniature
def utkface(root):
    photos(
        root,
        *(f"UTKFace/{20 + i}_{i % 2}_{i % 5}_20170116174525{i:03d}.jpg.chip.jpg" for i in range(14)),
        "UTKFace/39_1_20170116174525125.jpg.chip.jpg",
        "UTKFace/61_1_20170109142408075.jpg.chip.jpg",
        "UTKFace/61_1_20170109150557335.jpg.chip.jpg",
        "UTKFace/24_0_1_20170116220224657 .jpg.chip.jpg",
        "UTKFace/55_0_0_20170116232725357jpg.chip.jpg",
        "UTKFace/116_1_0_20170120134921760.jpg.chip.jpg",
    )
    write(root, {"UTKFace/.DS_Store": b"\0"})


def utkface_wild(root):
    photos(
        root,
        "part1/1_0_0_20161219140623097.jpg",
        "part1/61_1_20170109142408075.jpg",
        "part1/61_3_20170109150557335.jpg",
        "part2/39_1_20170116174525125.jpg",
        "part2/53__0_20170116184028385.jpg",
        "part2/44_1_4_20170116235150272.pg",
        "part3/55_0_0_20170116232725357jpg",
        "part3/60_1_3_20170120230123456.jpg",
    )


LANDMARKS = ";".join(f"{100 + i / 2:.2f}" for i in range(136))
AFFECTNET_HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
)


def affectnet_row(path, expression, valence="-0.5", arousal="0.25", box="134,134,899,899", landmarks=LANDMARKS):
    return f"{path},{box},{landmarks},{expression},{valence},{arousal}"


@miniature
def affectnet(root):
    train = [f"{100 + label}/{label:056x}.jpg" for label in range(11)]
    validation = ["200/aa.JPG", "201/bb.png"]
    rows = [affectnet_row(path, label) for label, path in enumerate(train)]
    rows[9] = affectnet_row(train[9], 9, "-2", "-2")
    rows.append(affectnet_row("300/missing_va.jpg", 1, "-2", "-2"))
    rows.append(affectnet_row("300/empty_box.jpg", 1, box="0,0,0,0"))
    write(
        root,
        {
            "Manually_Annotated_file_lists/training.csv": "\r\n".join([AFFECTNET_HEADER, *rows]) + "\r\n",
            "Manually_Annotated_file_lists/validation.csv": (
                affectnet_row(validation[0], 6, ".1", "-0.2") + "\n" + affectnet_row(validation[1], 7, "1", "-1") + "\n"
            ),
        },
    )
    everything = [*train, *validation, "300/missing_va.jpg", "300/empty_box.jpg"]
    photos(root, *(f"Manually_Annotated_Images/{name}" for name in everything), side=1040)


def affectnet_2021(root):
    # Label by number of the photo; the numbers of the real files have gaps, too.
    for folder, labels in (("train_set", {0: 0, 2: 1, 10: 7, 11: 8}), ("val_set", {3: 6})):
        for number, label in labels.items():
            photos(root, f"{folder}/images/{number}.jpg")
            values = {
                "exp": np.array(str(label)),
                "val": np.array(f"{label / 10:.6f}" if label else "-2"),
                "aro": np.array(-0.5 if label else -2.0),
                "lnd": np.arange(136, dtype=np.float64),
            }
            for key, value in values.items():
                path = root / folder / "annotations" / f"{number}_{key}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, value)


@miniature
def lfw(root):
    photos(
        root,
        "lfw/Aaron_Eckhart/Aaron_Eckhart_0001.jpg",
        *(f"lfw/Abdullah_Gul/Abdullah_Gul_{i:04d}.jpg" for i in range(1, 20)),
        "lfw/Zydrunas_Ilgauskas/Zydrunas_Ilgauskas_0001.jpg",
        "lfw/Aaron_Sorkin/Aaron_Sorkin_0001.jpg",
        "lfw/Aaron_Sorkin/Aaron_Sorkin_0002.jpg",
    )
    write(
        root,
        {
            "pairs.txt": (
                "2\t2\nAbdullah_Gul\t13\t14\nAaron_Sorkin\t1\t2\n"
                "Abdullah_Gul\t13\tAaron_Eckhart\t1\nAaron_Sorkin\t2\tZydrunas_Ilgauskas\t1\n"
                "Abdullah_Gul\t1\t2\nAbdullah_Gul\t3\t4\n"
                "Aaron_Eckhart\t1\tAaron_Sorkin\t1\nAaron_Eckhart\t1\tAaron_Sorkin\t2\n"
            )
        },
    )


def tfds_folder(root, name: str, version: str, examples: dict[str, list[tuple[np.ndarray, dict]]], **features) -> None:
    """A dataset as TensorFlow Datasets prepares it: by split, photos (stored as PNG) and their other features."""
    import tensorflow_datasets as tfds

    class Miniature(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """The dataset; TFDS treats a missing docstring as a missing description."""

        VERSION = tfds.core.Version(version)

        def _info(self):
            image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
            dictionary = tfds.features.FeaturesDict({"image": image, **features})
            return tfds.core.DatasetInfo(builder=self, features=dictionary)

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in examples}

        def _generate_examples(self, split):
            for i, (image, others) in enumerate(examples[split]):
                yield f"{i:04d}", {"image": io.BytesIO(cv2.imencode(".png", image)[1].tobytes()), **others}

    Miniature.name = name
    Miniature(data_dir=root, file_format="array_record").download_and_prepare()


@functools.cache
def _celeb_a_files() -> dict[str, bytes]:
    axes = {f"{point}_{axis}": 10 * i + (axis == "y") for i, point in enumerate(CELEB_A_POINTS) for axis in "xy"}
    image = np.full((218, 178, 3), 127, np.uint8)
    examples = {
        split: [
            (
                image,
                {"landmarks": axes, "attributes": {"Male": male, "Young": True}, "identity": {"Identity_No": number}},
            )
            for number, male in people
        ]
        for split, people in CELEB_A.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        tfds_folder(
            folder,
            "celeb_a",
            "2.1.0",
            examples,
            landmarks=dict.fromkeys(axes, np.int64),
            attributes=dict.fromkeys(("Male", "Young"), np.bool_),
            identity={"Identity_No": np.int64},
        )
        files = (path for path in pathlib.Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


CELEB_A_POINTS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")
# Number of the person, and whether it is a man.
CELEB_A = {"train": [(1, True), (10_177, False), (1, True)], "validation": [(2880, True)], "test": [(5, False)]}


@miniature
def celeb_a(root):
    write(root, _celeb_a_files())


@miniature
def ytf(root):
    listing = {
        "Richard_Gere": (
            "Richard_Gere\\3\\3.618.jpg,0,262,165,132,132,0.0,1",
            "Richard_Gere\\3\\3.619.jpg,0,260,164,131,131,0.0,1",
        ),
        "Abdullah_Gul": ("Abdullah_Gul\\0\\0.1.jpg,0,100,80,50,60,0.0,1",),
    }
    for name, lines in listing.items():
        write(root / "frame_images_DB", {f"{name}.labeled_faces.txt": "\r\n".join(lines) + "\r\n"})
        photos(root / "frame_images_DB", *(line.split(",")[0].replace("\\", "/") for line in lines), side=400)


@miniature
def afew(root):
    for half, first in (("Train_AFEW", 0), ("Val_AFEW", 100)):
        for i, label in enumerate(("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")):
            write(root, {f"{half}/{label}/{first + i:06d}240.avi": b"RIFF"})
    write(
        root, {"Train_AFEW/AlignedFaces_LBPTOP_Points/Faces/000000240/0001.jpg": jpeg(8), "Train_AFEW/Sad/._x.avi": b""}
    )


@miniature
def vgaf(root):
    for split, labels in (("Train", {"2_1": 3, "2_2": 2, "3_1": 1}), ("Val", {"1_1": 3, "5_10": 1})):
        table = "Vid_name Label\n" + "".join(f"{name} {label}\n" for name, label in labels.items())
        write(root, {f"{split}_labels.txt": table, **{f"{split}/{name}.mp4": b"\0\0\0 ftyp" for name in labels}})


@miniature
def raf_db(root):
    lines = [f"train_{i:05d}.jpg {i}" for i in range(1, 8)] + ["test_0001.jpg 7", "test_0002.jpg 4"]
    write(root, {"basic/EmoLabel/list_patition_label.txt": "\n".join(lines) + "\n"})
    photos(root, *(f"basic/Image/aligned/{line.split('.')[0]}_aligned.jpg" for line in lines))


FER_USAGES = ("Training",) * 7 + ("PublicTest", "PrivateTest")
FER_VOTES = (
    "4,0,0,1,3,2,0,0,0,0",  # 4 of 9 that count: no majority
    "6,0,1,1,0,0,0,0,2,0",  # neutral
    "0,0,0,1,0,0,0,9,0,0",  # contempt
    "0,1,0,0,0,0,0,0,0,9",  # no face
    "0,0,0,0,0,0,0,0,10,0",  # unknown
    "0,10,0,0,0,0,0,0,0,0",
    "0,0,5,0,0,0,5,0,0,0",  # a tie
    "0,0,0,8,0,0,0,0,2,0",
    "1,1,1,1,1,1,1,1,1,1",  # single votes only
)


def fer_pixels(row: int) -> list[int]:
    return [(row * 7 + i) % 256 for i in range(48 * 48)]


@miniature
def fer2013(root):
    faces = [
        f'{row % 7},"{" ".join(map(str, fer_pixels(row)))}",{usage}' if row else
        f"{row % 7},{' '.join(map(str, fer_pixels(row)))},{usage}"
        for row, usage in enumerate(FER_USAGES)
    ]  # fmt: skip
    votes = [
        f"{usage},{'' if vote.endswith('9') else f'fer{row:07d}.png'},{vote}"
        for row, (usage, vote) in enumerate(zip(FER_USAGES, FER_VOTES, strict=True))
    ]
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    write(
        root,
        {
            "fer2013.csv": "\n".join(["emotion,pixels,Usage", *faces]) + "\n",
            "fer2013new.csv": "\n".join([header, *votes]) + "\n",
        },
    )
