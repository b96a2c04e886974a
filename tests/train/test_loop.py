import dataclasses
import json
import os
import pathlib
import signal

import jax
import numpy as np
import pytest

from facejax.cards.card import model_card
from facejax.config import DataConfig, ModelConfig, SamConfig, StageConfig, StagesConfig
from facejax.evals.report import write_report
from facejax.inference import load_model
from facejax.train import loop
from facejax.train.metrics_log import read_metrics
from facejax.train.preemption import PreemptedError
from facejax.train.setup import set_up

from . import prepared

pytestmark = pytest.mark.usefixtures("toy_net")


def run(data_dir, workdir, **changes):
    workdir.mkdir(exist_ok=True)
    setup = set_up(prepared.toy_config(**changes), data_dir, workdir)
    return setup, loop.train(setup)


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    return run(data_dir, workdir)[0], workdir


def test_learns_and_logs_every_step(finished):
    setup, workdir = finished
    lines = read_metrics(workdir)
    steps = [line["step"] for line in lines if line["phase"] == "train"]
    per_epoch = len(setup.train_source) // 16
    assert steps == list(range(1, 3 * per_epoch + 1))
    evaluations = [line for line in lines if line["phase"] == "eval"]
    assert [line["epoch"] for line in evaluations] == [1, 2, 3]
    assert all(line["emotion8/n"] == len(setup.eval_source) for line in evaluations)
    assert evaluations[-1]["emotion8/accuracy"] > 0.8


def test_logged_accuracy_is_that_of_the_saved_model(finished):
    setup, workdir = finished
    crops = [setup.eval_source.read(i)["image"] for i in range(len(setup.eval_source))]
    predicted = load_model(workdir / "last").predict(crops)["emotion8"].argmax(axis=1)
    logged = [line for line in read_metrics(workdir) if line["phase"] == "eval"][-1]["emotion8/accuracy"]
    assert (predicted == setup.eval_labels["emotion8"]).mean() == pytest.approx(logged)


def test_report_holds_best_and_last(finished):
    setup, workdir = finished
    report = write_report(workdir, setup.config, setup.tasks, setup.eval_source, read_metrics(workdir), "squares")
    assert json.loads((workdir / "report.json").read_text()) == report
    evaluations = [line for line in read_metrics(workdir) if line["phase"] == "eval"]
    assert report["last"]["tasks"]["emotion8"]["accuracy"] == pytest.approx(evaluations[-1]["emotion8/accuracy"])
    assert report["last"]["epoch"] == 3
    highest = max(line["emotion8/accuracy"] for line in evaluations)
    assert report["best"]["tasks"]["emotion8"]["accuracy"] == pytest.approx(highest)
    for name in ("best", "last"):
        assert report[name]["dataset"] == "facial_expressions"
        of_task = report[name]["tasks"]["emotion8"]
        assert of_task["n"] == len(setup.eval_source)
        assert {"balanced_accuracy", "seven_from_eight", "interval95"} <= of_task.keys()
        by_gender = next(found for found in of_task["groups"] if found["attribute"] == "gender")
        genders = {group["name"]: (group["n"], group["value"]) for group in by_gender["groups"]}
        assert sum(n for n, _ in genders.values()) == of_task["n"]
        assert sum(n * value for n, value in genders.values()) / of_task["n"] == pytest.approx(of_task["accuracy"])
        assert all(group["clusters"] < group["n"] for group in by_gender["groups"])
    assert "By gender, last epoch" in (workdir / "report.md").read_text()
    card = model_card(setup.cfg, report)
    assert "emotion8 accuracy, gender female" in card
    assert "`facial_expressions`" in card
    for picture in ("emotion8.png", "curves.png", "emotion8_crops.png"):
        assert (workdir / picture).stat().st_size > 10_000


@pytest.mark.parametrize("interrupt_at", [2, 13, 19])
def test_interrupted_run_continues_bit_for_bit(data_dir, finished, tmp_path, monkeypatch, interrupt_at):
    """Stopped within the head stage, at its end and within the full stage; the rerun logs the same numbers."""
    workdir = tmp_path / "run"
    record, seen = loop._Stage.record, []

    def stop(self, pending, meter):
        record(self, pending, meter)
        seen.append(pending)
        if len(seen) == interrupt_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop._Stage, "record", stop)
        run(data_dir, workdir)
    run(data_dir, workdir)
    assert read_metrics(workdir) == read_metrics(finished[1])
    for name in ("best", "last"):
        ours, theirs = (load_model(path / name).variables for path in (workdir, finished[1]))
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), ours, theirs))


def test_sigterm_in_an_evaluation_of_the_second_stage_evaluates_again(data_dir, finished, tmp_path, monkeypatch):
    make, evaluated = loop.eval_batches, []

    def terminated(source, *args, **kwargs):
        evaluated.append(source.name.split("/")[1])
        if evaluated.count("validation") == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return make(source, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(PreemptedError):
        patch.setattr(loop, "eval_batches", terminated)
        run(data_dir, tmp_path / "run")
    run(data_dir, tmp_path / "run")
    assert read_metrics(tmp_path / "run") == read_metrics(finished[1])


def test_the_seed_decides_weights_order_and_dropout(data_dir, tmp_path, monkeypatch):
    make, started = loop._Stage.batches, []

    def stop(self, state):
        started.append((state, next(make(self, state))["image"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(loop._Stage, "batches", stop)
    stages = StagesConfig(StageConfig(epochs=0), StageConfig(epochs=1))
    for place, seed in enumerate((3, 3, 4)):
        with pytest.raises(KeyboardInterrupt):
            run(data_dir, tmp_path / str(place), stages=stages, seed=seed)
    (one, first), (same, again), (another, other) = started
    for part in (
        lambda state: state.params["backbone"]["Conv_0"]["kernel"],
        lambda state: state.params["head_emotion8"]["logits"]["kernel"],
        lambda state: jax.random.key_data(state.rng),
    ):
        assert (part(one) == part(same)).all()
        assert not (part(one) == part(another)).all()
    assert (first == again).all()
    assert not (first == other).all()


def test_the_second_stage_goes_on_with_the_weights_of_the_first(data_dir, tmp_path, monkeypatch):
    go, seen = loop._Stage.run, []

    def noted(self, state):
        seen.append(jax.device_get((state.params, state.batch_stats)))
        state = go(self, state)
        seen.append(jax.device_get((state.params, state.batch_stats)))
        return state

    monkeypatch.setattr(loop._Stage, "run", noted)
    stage = StageConfig(epochs=1, lr=1e-2)
    run(data_dir, tmp_path / "run", stages=StagesConfig(stage, stage))
    start, between, onward, end = seen
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), between, onward))
    for before, after in ((start, between), (onward, end)):
        assert not jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, after))


def test_features_are_kept_where_nothing_varies_and_they_fit():
    stage = StageConfig(epochs=1, trainable="heads", batch_norm="running")
    config, fitting = prepared.toy_config(), loop.FEATURE_CACHE_BYTES // (4 * 1280)  # float32
    assert loop.keeps_features(config, stage, fitting, 1280)
    assert not loop.keeps_features(config, stage, fitting + 1, 1280)
    assert not loop.keeps_features(config, dataclasses.replace(stage, trainable="all"), 10, 1280)
    assert not loop.keeps_features(config, dataclasses.replace(stage, batch_norm="batch"), 10, 1280)
    flipped = prepared.toy_config(data=DataConfig(augmentation="flip"))
    assert not loop.keeps_features(flipped, stage, 10, 1280)


def test_rerun_of_a_finished_run_trains_nothing(data_dir, finished):
    _, workdir = finished
    before = read_metrics(workdir)
    run(data_dir, workdir)
    assert read_metrics(workdir) == before


def test_non_finite_loss_stops_with_its_step_and_keeps_the_last_good_checkpoint(data_dir, tmp_path, monkeypatch):
    make, poisoned = loop.train_loader, 3

    def loader(*args, start_step=0, **kwargs):
        for step, batch in enumerate(make(*args, start_step=start_step, **kwargs), start_step):
            # The label is in range, but the mask weight is NaN.
            yield {**batch, "mask": batch["mask"] * (np.nan if step == poisoned else 1)}

    stages = StagesConfig(StageConfig(epochs=0), StageConfig(epochs=1, lr=1e-2))
    checkpoint = dataclasses.replace(prepared.toy_config().checkpoint, every_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_loader", loader)
        with pytest.raises(loop.NonFiniteLossError, match="step 4"):
            run(data_dir, tmp_path / "run", stages=stages, checkpoint=checkpoint)
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3]
    _, progress = run(data_dir, tmp_path / "run", stages=stages, checkpoint=checkpoint)
    assert progress.epoch == 1


def test_a_network_that_says_nothing_of_photos_that_can_be_read_stops_the_run(data_dir, tmp_path, monkeypatch):
    """Its rows are not mistaken for those of unreadable photos: neither in the kept features, nor in an epoch."""
    config = prepared.toy_config()
    setup = set_up(config, data_dir, tmp_path)
    variables = jax.tree.map(np.copy, loop.initial_variables(setup))
    variables["batch_stats"]["backbone"]["BatchNorm_0"]["var"][3] = np.nan
    monkeypatch.setattr(loop, "initial_variables", lambda setup: variables)
    with pytest.raises(loop.NonFiniteLossError, match=r"is not finite \(in 1\d\d of 1\d\d records\) in the head stage"):
        loop.train(setup)
    stages = StagesConfig(StageConfig(epochs=0), StageConfig(epochs=1, batch_norm="batch"))
    setup = set_up(dataclasses.replace(config, stages=stages), data_dir, tmp_path)
    with pytest.raises(loop.NonFiniteLossError, match=r"is not finite .* in the full stage; the last good checkpoint"):
        loop.train(setup)
    assert not (tmp_path / "best").exists()


def test_a_weight_that_is_not_finite_is_not_kept(data_dir, tmp_path, monkeypatch):
    """The network's output may still be finite: here the statistics are updated but not read."""
    stages = StagesConfig(StageConfig(epochs=0), StageConfig(epochs=1))
    setup = set_up(prepared.toy_config(stages=stages), data_dir, tmp_path)
    variables = jax.tree.map(np.copy, loop.initial_variables(setup))
    variables["batch_stats"]["backbone"]["BatchNorm_0"]["mean"][3] = np.nan
    monkeypatch.setattr(loop, "initial_variables", lambda setup: variables)
    said = {"emotion8": np.full((len(setup.eval_source), 8), 1 / 8, np.float32)}
    monkeypatch.setattr(loop._Stage, "outputs", lambda *args: said)
    with pytest.raises(loop.NonFiniteLossError, match="a weight or statistic is not finite at step"):
        loop.train(setup)
    assert not (tmp_path / "best").exists()


def test_an_epoch_without_a_value_is_the_best_only_while_there_is_no_other(data_dir, tmp_path, monkeypatch):
    values = iter([np.nan, 0.25, np.nan, 0.5])
    monkeypatch.setattr(loop, "selection_value", lambda *_: next(values))
    best, keep = [], loop._Stage.keep

    def noted(self, name, *args):
        best.extend([self.progress.epoch] * (name == "best"))
        keep(self, name, *args)

    monkeypatch.setattr(loop._Stage, "keep", noted)
    _, progress = run(data_dir, tmp_path / "run", stages=StagesConfig(StageConfig(epochs=0), StageConfig(epochs=4)))
    assert (best, progress.best_epoch, progress.best) == ([1, 2, 4], 4, 0.5)


def test_a_stage_that_is_all_warm_up_is_told(data_dir, tmp_path, caplog):
    stages = StagesConfig(StageConfig(epochs=0), StageConfig(epochs=1, warmup_steps=500))
    run(data_dir, tmp_path / "run", stages=stages)
    assert "are warm-up (--config.stages.full.warmup_steps=500)" in caplog.text


def test_a_gradient_that_is_not_finite_is_in_no_checkpoint(data_dir, tmp_path):
    """The loss is that of the weights before the step: it is finite even if SAM's second pass is not."""
    changes = {"sam": SamConfig(rho=1e38), "stages": StagesConfig(StageConfig(epochs=0), StageConfig(epochs=1))}
    checkpoint = dataclasses.replace(prepared.toy_config().checkpoint, every_steps=1)
    with pytest.raises(loop.NonFiniteLossError, match=r"norm of the gradient is nan at step 1 .* another --workdir"):
        run(data_dir, tmp_path / "run", checkpoint=checkpoint, **changes)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert not (tmp_path / "run" / "best").exists()


def test_init_from_takes_the_backbone_only(data_dir, finished, tmp_path):
    from facejax.train.setup import initial_variables

    model = ModelConfig(backbone="toy_net", init_from=str(finished[1] / "best"))
    setup = set_up(prepared.toy_config(model=model, seed=5), data_dir, tmp_path)
    variables, loaded = initial_variables(setup), load_model(finished[1] / "best").variables
    assert jax.tree.all(
        jax.tree.map(lambda a, b: bool((a == b).all()), variables["params"]["backbone"], loaded["params"]["backbone"])
    )
    fresh = variables["params"]["head_emotion8"]["logits"]["kernel"]
    assert not (fresh == loaded["params"]["head_emotion8"]["logits"]["kernel"]).all()


def test_init_from_takes_a_run_or_its_best_model_by_name_and_by_folder(finished, tmp_path, monkeypatch):
    from facejax.train.initial import load_initial

    run, elsewhere = finished[1], tmp_path / "run"
    monkeypatch.chdir(run.parent)
    wanted = load_model(run / "best").variables["params"]["head_emotion8"]["logits"]["kernel"]
    places = [(run, elsewhere), (run / "best", elsewhere), (pathlib.Path(run.name), elsewhere)]
    places += [(pathlib.Path(run.name) / "best", elsewhere), (pathlib.Path(run.name), run.parent / "another")]
    for named, workdir in places:
        variables, _ = load_initial(str(named), workdir)
        np.testing.assert_array_equal(variables["params"]["head_emotion8"]["logits"]["kernel"], wanted)
    monkeypatch.chdir(tmp_path)
    load_initial(run.name, run.parent / "another")
    with pytest.raises(FileNotFoundError, match="neither a folder with a saved model, nor a finished run"):
        load_initial(run.name, elsewhere)


def test_pmap_run_learns_too(data_dir, tmp_path):
    stages = StagesConfig(StageConfig(epochs=0), StageConfig(epochs=2, lr=2e-2))
    _, progress = run(data_dir, tmp_path / "run", parallel="pmap", stages=stages, sam=SamConfig(perturbation="synced"))
    assert progress.best > 0.6


@pytest.mark.parametrize("name", ["none", "flip", "random_resized_crop"])
def test_photos_are_augmented_as_the_config_says(data_dir, tmp_path, monkeypatch, name):
    stages = StagesConfig(StageConfig(epochs=1, lr=1e-2, trainable="heads", batch_norm="batch"), StageConfig(epochs=0))
    make, seen = loop.train_loader, []

    def loader(*args, **kwargs):
        for batch in make(*args, **kwargs):
            seen.append(batch)
            yield batch

    monkeypatch.setattr(loop, "train_loader", loader)
    data = DataConfig(name="facial_expressions", augmentation=name)
    setup, progress = run(data_dir, tmp_path / "run", data=data, stages=stages)
    assert progress.epoch == 1
    kinds = set()
    for batch in seen:
        for image, index in zip(batch["image"], batch["index"], strict=True):
            plain = setup.cfg.preprocessing.resize(setup.train_source.read(int(index))["image"])
            mirrored = setup.cfg.preprocessing.resize(setup.train_source.read(int(index))["image"][:, ::-1])
            is_plain, is_mirrored = ((image == other).all() for other in (plain, mirrored))
            kinds.add("plain" if is_plain else "mirrored" if is_mirrored else "another")
    assert kinds == {"none": {"plain"}, "flip": {"plain", "mirrored"}, "random_resized_crop": {"another"}}[name]


def test_each_stage_has_an_order_of_its_own(data_dir, tmp_path, monkeypatch):
    make, orders = loop.train_loader, []

    def loader(*args, **kwargs):
        orders.append([])
        for batch in make(*args, **kwargs):
            orders[-1] += batch["index"].tolist()
            yield batch

    monkeypatch.setattr(loop, "train_loader", loader)
    stage = StageConfig(epochs=1)
    run(data_dir, tmp_path / "run", stages=StagesConfig(stage, stage))
    first, second = (order[:64] for order in orders)
    assert len(set(first)) == len(set(second)) == 64
    assert first != second


def test_the_first_of_equal_epochs_is_the_best(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "selection_value", lambda *args: -3.0)  # as of an error in years
    stages = StagesConfig(StageConfig(epochs=0), StageConfig(epochs=3))
    checkpoint = dataclasses.replace(prepared.toy_config().checkpoint, keep=3)
    _, progress = run(data_dir, tmp_path / "run", stages=stages, checkpoint=checkpoint)
    assert (progress.best_epoch, progress.epoch) == (1, 3)
    with np.load(tmp_path / "run" / "scores_best.npz") as best, np.load(tmp_path / "run" / "scores_last.npz") as last:
        assert (int(best["epoch"]), int(last["epoch"])) == (1, 3)
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 3


def test_a_damaged_line_of_the_log_costs_itself_only(tmp_path, caplog):
    lines = [json.dumps({"step": step, "phase": "train", "loss": 1.0}) for step in range(1, 6)]
    (tmp_path / "metrics.jsonl").write_bytes(
        "\n".join([*lines[:2], "gar\udce9bled", "7", *lines[2:], lines[0][:9]]).encode(errors="surrogateescape")
    )
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    told = [record.getMessage().split(" of ")[0] for record in caplog.records]
    assert told == ["skipping damaged line 3", "skipping damaged line 4"]


def test_clear_errors(data_dir, tmp_path):
    with pytest.raises(ValueError, match="multiple of the 8 devices"):
        run(data_dir, tmp_path, batch_size=12)
    with pytest.raises(ValueError, match="eval_batch_size 12 is not a multiple of the 8 devices"):
        run(data_dir, tmp_path, eval_batch_size=12)
    with pytest.raises(ValueError, match="fewer than one batch"):
        run(data_dir, tmp_path, batch_size=4096)
    with pytest.raises(FileNotFoundError, match=r"prepare_dataset\.py affectnet"):
        run(data_dir, tmp_path, data=DataConfig(name="affectnet"))


def test_head_stage_leaves_out_a_record_that_cannot_be_read(tmp_path, monkeypatch):
    """Its features are unknown; they are zeros instead of NaN, which masking does not remove."""
    data_dir = prepared.prepare_squares(tmp_path)
    shard = min(data_dir.rglob("*train.tfrecord*"), key=lambda path: (path.suffix == ".index", path.name))
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    shard.write_bytes(damaged)
    setup = set_up(
        prepared.toy_config(
            data=DataConfig(name="facial_expressions", read_threads=1, on_corrupt="skip"),
            stages=StagesConfig(
                head=StageConfig(epochs=2, lr=1e-2, trainable="heads", batch_norm="running"), full=StageConfig(epochs=0)
            ),
        ),
        data_dir,
        tmp_path,
    )
    make, given = loop.array_loader, []

    def noted(arrays, *args, **kwargs):
        given.append(arrays)
        return make(arrays, *args, **kwargs)

    monkeypatch.setattr(loop, "array_loader", noted)
    loop.train(setup)
    assert len(setup.train_source.corrupt) == 1
    (place,) = setup.train_source.corrupt
    for arrays in given:
        assert np.flatnonzero(arrays["mask"] == 0).tolist() == [place]
        assert np.flatnonzero((arrays["features"] == 0).all(axis=1)).tolist() == [place]
    assert all(np.isfinite(line["loss"]) for line in read_metrics(tmp_path) if line["phase"] == "train")
