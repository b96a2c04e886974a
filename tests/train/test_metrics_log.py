import json
import struct

from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore

from facejax.train.metrics_log import MetricsLog, read_metrics


def events(workdir):
    """{(tag, step): value}, as TensorBoard reads the files: a start event supersedes events from its step on."""
    found = {}
    for path in sorted((workdir / "tensorboard").glob("*tfevents*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event, content = Event.FromString(content[12 : 12 + length]), content[16 + length :]
            if event.session_log.status == SessionLog.START:
                found = {key: value for key, value in found.items() if key[1] < event.step}
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return found


def test_a_killed_run_leaves_as_much_in_tensorboard_as_in_its_log(tmp_path):
    first = MetricsLog(tmp_path, 0, 0)
    for step in range(1, 6):
        first.write(step, phase="train", stage="head", loss=1 / step, accuracy=step / 8)
    first.write(4, phase="eval", stage="head", epoch=1, mae=float("nan"), n=3)
    # It is not closed, as if the process was killed; the checkpoint is of step 4, after the evaluation.
    second = MetricsLog(tmp_path, 4, 1)
    second.write(5, phase="train", stage="full", loss=8.0)
    found, lines = events(tmp_path), read_metrics(tmp_path)
    for log in (first, second):
        log.close()
    expected = {
        **{("train/loss", step): struct.unpack("f", struct.pack("f", 1 / step))[0] for step in range(1, 5)},
        **{("train/accuracy", step): step / 8 for step in range(1, 5)},
        ("eval/epoch", 4): 1.0,
        ("eval/n", 4): 3.0,
        ("train/loss", 5): 8.0,
    }
    assert found == expected
    assert [(line["phase"], line["step"]) for line in lines] == [
        *(("train", step) for step in range(1, 5)),
        ("eval", 4),
        ("train", 5),
    ]
    assert all(json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines())


def test_an_evaluation_after_the_checkpoint_of_its_step_is_done_and_logged_again(tmp_path):
    """SIGTERM came before the evaluation: the checkpoint of step 2 has no evaluated epoch yet."""
    log = MetricsLog(tmp_path, 0, 0)
    log.write(1, phase="train", stage="head", loss=1.0)
    log.write(2, phase="train", stage="head", loss=1.0)
    log.write(2, phase="eval", stage="head", epoch=1, n=3)
    log.close()
    MetricsLog(tmp_path, 2, 0).close()
    assert [(line["phase"], line["step"]) for line in read_metrics(tmp_path)] == [("train", 1), ("train", 2)]
