import json

import pytest

from experiments import run, tables


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
    assert "| MobileNet-v1, MTCNN crop | 92.60 ± 4.01 | not run: needs LFW |" in printed


def test_a_result_stands_beside_the_paper_s_number_with_its_data(tmp_path, capsys):
    (tmp_path / "lfw_mobilenet@toy.json").write_text(json.dumps(lfw_report(0.85)))
    (tmp_path / "lfw_b0").mkdir()
    (tmp_path / "lfw_b0/report.json").write_text(json.dumps(lfw_report(0.86)))
    tables.main(["--results", str(tmp_path), "--table", "Table 1"])
    printed = capsys.readouterr().out
    ours = "85.00 ± 2.00 [80.00, 90.00], 172 persons | 480 | toy photos; toy | `python x`"
    assert f"| MobileNet-v1, MTCNN crop | 92.60 ± 4.01 | {ours} |" in printed
    assert "| EfficientNet-B0, MTCNN crop | 94.58 ± 4.58 | 86.00 ± 2.00" in printed
    assert "Table 2" not in printed


@pytest.mark.parametrize(("name", "millions"), [("mobilenet_v1", 3.2), ("resnet18", 11.2)])
def test_parameters_are_those_of_the_networks(name, millions):
    assert tables.parameters(name) == pytest.approx(millions, abs=0.05)
