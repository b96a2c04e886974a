import json

import pytest

from experiments import run, tables
from facejax.protocol_config import AttributesConfig, LfwConfig, VideoConfig


def lfw_report(accuracy):
    one = {"accuracy": accuracy, "std": 0.02, "interval95": [0.8, 0.9], "persons": 172, "n": 480}
    crops = {"mtcnn": {"identification": one}}
    return {"data": "toy photos", "network": "toy", "command": "python x", "crops": crops}


def test_every_config_with_a_row_is_in_a_table(capsys):
    tables.main(["--results"])
    printed = capsys.readouterr().out
    for name in run.list_configs():
        if run.load_config(name).paper.table:
            assert f"--config {name}`" in printed, name
    for table in tables.TITLES:
        assert f"## {table}: " in printed
    for row in ("centre crop | 90.80 ± 3.96", "MTCNN crop | 92.60 ± 4.01"):
        assert f"| MobileNet-v1, {row} | not run: needs LFW |" in printed
    for row in ("gender | 93.79", "age | 5.74", "gender, aged 21-60 | 97.50", "age, aged 21-60 | 5.39"):
        assert f"| MobileNet-v1, {row} | not run: needs UTKFace (for research) |" in printed


def test_a_result_stands_beside_the_paper_s_number_with_its_data(tmp_path, capsys):
    (tmp_path / "lfw_mobilenet@toy.json").write_text(json.dumps(lfw_report(0.85)))
    (tmp_path / "lfw_b0").mkdir()
    (tmp_path / "lfw_b0/report.json").write_text(json.dumps(lfw_report(0.86)))
    tables.main(["--results", str(tmp_path), "--table", "Table 1"])
    printed = capsys.readouterr().out
    ours = "85.00 ± 2.00 [80.00, 90.00], 172 people | 480 | toy photos; toy; not comparable | `python x`"
    assert f"| MobileNet-v1, MTCNN crop | 92.60 ± 4.01 | {ours} |" in printed
    assert "| EfficientNet-B0, MTCNN crop | 94.58 ± 4.58 | 86.00 ± 2.00" in printed
    assert "Table 2" not in printed


def test_a_result_without_an_interval_is_shown(tmp_path, capsys):
    """Where everybody is identified, all bootstrap draws are equal, and the report has null for both ends."""
    report = lfw_report(1.0)
    report["crops"]["mtcnn"]["identification"] |= {"std": 0.0, "interval95": [None, None]}
    (tmp_path / "lfw_b0.json").write_text(json.dumps(report))
    tables.main(["--results", str(tmp_path), "--table", "Table 1"])
    captured = capsys.readouterr()
    assert "| EfficientNet-B0, MTCNN crop | 94.58 ± 4.58 | 100.00 ± 0.00, 172 people | 480 |" in captured.out
    assert not captured.err


def test_what_cannot_be_compared_says_so(tmp_path, capsys):
    config = run.load_config("emotion_b0")
    for name, comparable in (("whole", True), ("part", False)):
        report = report_of(config) | {"data": name, "paper": {"comparable": comparable}}
        (tmp_path / f"emotion_b0@{name}.json").write_text(json.dumps(report))
        report = lfw_report(0.5) | {"data": name, "comparable": comparable}
        (tmp_path / f"lfw_b0@{name}.json").write_text(json.dumps(report))
    tables.main(["--results", str(tmp_path)])
    printed = capsys.readouterr().out
    for told in ("whole; cpu profile |", "part; cpu profile; not comparable |", "whole; toy |", "part; toy; not comp"):
        assert f"| 9 | {told}" in printed or f"| 480 | {told}" in printed


def test_a_cost_chosen_on_the_reported_clips_is_told(tmp_path, capsys):
    report = report_of(run.load_config("video_afew_b0"))
    report["results"]["linear_svc"]["chosen_by"] = "peeking_at_validation"
    (tmp_path / "video_afew_b0.json").write_text(json.dumps(report))
    tables.main(["--results", str(tmp_path), "--table", "Table 4"])
    assert capsys.readouterr().out.count("50.00 [40.00, 60.00], C chosen on these clips | 9 |") == 2


def test_classifiers_of_another_label_do_not_stand_beside_the_paper_s_numbers(tmp_path, capsys):
    report = report_of(run.load_config("utkface_ethnicity_mobilenet")) | {"fit": "gender"}
    (tmp_path / "utkface_ethnicity_mobilenet.json").write_text(json.dumps(report))
    tables.main(["--results", str(tmp_path), "--table", "Table 7"])
    printed = capsys.readouterr().out
    assert "| MobileNet-v1 features, gender, logistic | - | 50.00 [40.00, 60.00] | 9 |" in printed
    assert "| MobileNet-v1 features, logistic | 87.60 | in no report |" in printed


def test_figures_of_others_than_the_paper_have_a_table_of_their_own(capsys):
    tables.main(["--results", "--table", "EmotiEffLib"])
    printed = capsys.readouterr().out
    assert printed.startswith("## EmotiEffLib: The successor, not in the paper")
    assert "| enet_b0_8_va_mtl, emotion8 | 61.93 |" in printed
    tables.main(["--results", "--table", "section 3"])
    assert "enet_b0" not in capsys.readouterr().out


def report_of(config):
    """The minimal contents of a config's report."""
    one = {"accuracy": 0.5, "interval95": [0.4, 0.6], "n": 9}
    common = {"data": "toy photos", "command": "python x"}
    if isinstance(config, LfwConfig):
        return lfw_report(0.5)
    if isinstance(config, VideoConfig):
        return common | {"network": "toy", "results": {"linear_svc": {"all": one, "with_faces": one}}}
    if isinstance(config, AttributesConfig):
        ages = {"0-200": {"n": 0, "mae": None, "interval95": [None, None]}}
        return common | {"network": "toy", "heads": {}, "ages": ages, "fitted": {"logistic": one}}
    seven = {"seven_from_eight": one | {"accuracy": 0.75}}
    tasks = {task: one | (seven if task == "emotion8" else {}) for task in config.model.tasks}
    if "age" in tasks:
        tasks["age"] = {
            "n": 9,
            "mae": 5.5,
            "interval95": [5.0, 6.0],
            "class_accuracy": 0.125,
            "class_interval95": [0.1, 0.2],
        }
    if "valence_arousal" in tasks:
        tasks["valence_arousal"] = {"n": 9, "ccc_valence": 0.5, "ccc_arousal": -0.0001}
        tasks["valence_arousal"]["ccc_valence_interval95"] = [0.4, 0.6]
    return common | {"profile": "cpu", "best": {"tasks": {}}, "last": {"tasks": tasks}}


def test_every_number_of_the_paper_is_printed_once_there_are_results(tmp_path, capsys):
    for name in run.list_configs():
        (tmp_path / f"{name}.json").write_text(json.dumps(report_of(run.load_config(name))))
    tables.main(["--results", str(tmp_path)])
    printed = capsys.readouterr().out.splitlines()
    for name in run.list_configs():
        config = run.load_config(name)
        for what, number in tables._paper_numbers(config) if config.paper.table else ():
            row = f"| {config.paper.row}, {what} | {number} | "
            assert any(line.startswith(row) for line in printed), (name, row)
    assert any(line.startswith("| EfficientNet-B0 (VGGFace2), 7 classes | 64.57 | 75.00 [") for line in printed)
    seven = next(
        line for line in printed if line.startswith("| EfficientNet-B0, trained on 7, emotion7 | 65.74 | 50.00")
    )
    assert seven.endswith("| 9 | toy photos; cpu profile; not comparable | `python x` |")


def test_ages_have_an_error_and_an_accuracy_of_classes(tmp_path, capsys):
    report = report_of(run.load_config("attributes_mobilenet"))
    (tmp_path / "attributes_mobilenet@new.json").write_text(json.dumps(report))
    del report["last"]["tasks"]["age"]["class_interval95"]
    (tmp_path / "attributes_mobilenet@old.json").write_text(json.dumps(report))
    tables.main(["--results", str(tmp_path), "--table", "section 3"])
    printed = capsys.readouterr().out
    assert "| MobileNet-v1, age | - | 5.50 [5.00, 6.00] years (last epoch) | 9 |" in printed
    assert "| MobileNet-v1, age class | 13.00 | 12.50 [10.00, 20.00] (last epoch) | 9 |" in printed
    assert "| MobileNet-v1, age class | 13.00 | 12.50 (last epoch) | 9 |" in printed


def test_concordances_stand_beside_those_of_the_successor_s_authors(tmp_path, capsys):
    report = report_of(run.load_config("multitask_b0"))
    (tmp_path / "multitask_b0.json").write_text(json.dumps(report))
    tables.main(["--results", str(tmp_path), "--table", "EmotiEffLib"])
    printed = capsys.readouterr().out
    assert "| enet_b0_8_va_mtl, emotion8 | 61.93 | 50.00 [40.00, 60.00] (last epoch) | 9 |" in printed
    assert "| enet_b0_8_va_mtl, CCC of valence | 0.594 | 0.500 [0.400, 0.600] (last epoch) | 9 |" in printed
    assert "| enet_b0_8_va_mtl, CCC of arousal | 0.549 | 0.000 (last epoch) | 9 |" in printed  # of an older report


def test_the_command_of_a_run_names_its_config_whatever_its_workdir_is_called(tmp_path, capsys):
    for workdir, command in (
        ("b0_again", "python experiments/run.py --config lfw_b0 --workdir b0_again --config.folds=2"),
        ("lfw_b0", "python experiments/run.py --workdir lfw_b0 --config=lfw_mobilenet"),
        ("mine", "python experiments/run.py --config lfw_gone --workdir mine"),
        ("unnamed", ""),
    ):
        (tmp_path / workdir).mkdir()
        (tmp_path / workdir / "report.json").write_text(json.dumps(lfw_report(0.85) | {"command": command}))
    (tmp_path / "config.json").write_text(json.dumps({"data": {"name": "lfw"}}))  # no report
    tables.main(["--results", str(tmp_path), "--table", "Table 1"])
    printed, warned = capsys.readouterr()
    for row in ("EfficientNet-B0, MTCNN crop | 94.58 ± 4.58", "MobileNet-v1, MTCNN crop | 92.60 ± 4.01"):
        assert printed.count(f"| {row} | 85.00 ± 2.00") == 1
    assert warned.splitlines() == [
        f"not shown: {tmp_path}/mine/report.json (no config of that name: lfw_gone)",
        f"not shown: {tmp_path}/unnamed/report.json (no config of that name: unnamed)",
    ]


def test_damaged_reports_are_named_and_the_others_shown(tmp_path, capsys):
    whole = report_of(run.load_config("emotion_b0"))
    damaged = {
        "truncated": json.dumps(whole)[:-20].encode(),
        "unfinished": json.dumps({key: value for key, value in whole.items() if key != "last"}).encode(),
        "list": b"[1, 2]",
        "binary": b"\xff\xfe",
    }
    for name, contents in {**damaged, "whole": json.dumps(whole).encode()}.items():
        (tmp_path / f"emotion_b0@{name}").mkdir()
        (tmp_path / f"emotion_b0@{name}" / "report.json").write_bytes(contents)
    tables.main(["--results", str(tmp_path), "--table", "Table 2"])
    printed, warned = capsys.readouterr()
    assert printed.count("| EfficientNet-B0 (VGGFace2), emotion8 | 61.32 | 50.00 [40.00, 60.00] (last epoch) |") == 1
    for name, line in zip(sorted(damaged), warned.splitlines(), strict=True):
        assert line.startswith(f"not shown: {tmp_path}/emotion_b0@{name}/report.json (damaged, or not a report: ")
    assert "KeyError('last')" in warned


def test_all_clips_are_told_apart_from_those_with_faces():
    parts = {
        "all": {"accuracy": 0.5, "interval95": [0.4, 0.6], "n": 9},
        "with_faces": {"accuracy": 0.6, "interval95": [0.5, 0.7], "n": 7},
    }
    found = tables._our_numbers(run.load_config("video_afew_b0"), {"results": {"linear_svc": parts, "logistic": parts}})
    everything, seen = ("50.00 [40.00, 60.00]", 9), ("60.00 [50.00, 70.00]", 7)
    assert found == {
        "all clips": everything,
        "clips with faces": seen,
        "all clips (logistic)": everything,
        "clips with faces (logistic)": seen,
    }


@pytest.mark.parametrize("arguments", [["--table", "Table 9"], ["--results", "nowhere"]])
def test_mistakes_are_told(arguments, capsys):
    with pytest.raises(SystemExit):
        tables.main(arguments)
    assert arguments[1] in capsys.readouterr().err


@pytest.mark.parametrize(("name", "millions"), [("mobilenet_v1", 3.2), ("resnet18", 11.2)])
def test_parameters_are_those_of_the_networks(name, millions):
    assert tables.parameters(name) == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(("row", "millions", "name"), [(row, size, name) for row, _, size, name in tables.SIZES])
def test_rows_of_table_3_are_the_networks_of_these_sizes(row, millions, name):
    """The paper's counts include some classifiers."""
    assert tables.parameters(name) == pytest.approx(millions, rel=0.12), row


def test_no_records_have_no_figure():
    assert tables.accuracy({"n": 0, "accuracy": None, "interval95": [None, None]}) == "-"


def test_ages_of_one_person_have_no_interval(tmp_path, capsys):
    report = report_of(run.load_config("utkface_mobilenet"))
    report["ages"] = {"21-60": {"n": 6, "mae": 20.43, "interval95": [None, None]}}
    (tmp_path / "utkface_mobilenet.json").write_text(json.dumps(report))
    tables.main(["--results", str(tmp_path), "--table", "Table 6"])
    assert "| MobileNet-v1, age, aged 21-60 | 5.39 | 20.43 | 6 |" in capsys.readouterr().out
    assert tables.accuracy({"n": 6, "accuracy": 0.5, "interval95": [None, None]}) == "50.00"
    assert tables.accuracy({"n": 6, "accuracy": 0.5, "interval95": [float("nan")] * 2}) == "50.00"
