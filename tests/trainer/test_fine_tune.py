"""Training step by step: from activations or from pixels, what moves and what does not, and when it stops."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.errors import ConfigError, DataError, ModelError
from tests.trainer import tiny_network as tiny
from trainer.dataset.samples import Box
from trainer.progress import Steps
from trainer.settings import Settings

pytestmark = pytest.mark.needs("tensorflow")

ROOT = Path(__file__).resolve().parents[2]
LABELS = [i % 3 for i in range(60)]
TRAIN, VALIDATION = np.arange(42), np.arange(42, 60)
NOBODY = np.array([], dtype=np.intp)
BASE = Settings(fine_tune_from="second", epochs=3, rate=0.01, views=2, batch=8, smoothing=0.1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def network() -> Any:
    """Nothing here may change it."""
    return tiny.network()


@pytest.fixture
def make(network: Any, tmp_path: Path) -> Any:
    """A tuner of some settings, of all photos unless others are given."""
    from trainer.tuner import Tuner

    def made(settings: Settings = BASE, photos: Any = None, folder: str = "work") -> Any:
        data = tiny.photos(LABELS) if photos is None else photos
        return Tuner(network, data, settings, tmp_path / folder, Steps(quiet=True))

    return made


def weights(tuner: Any) -> dict[str, Any]:
    from trainer import model

    return model.weights_of(tuner._model)


def right(logits: Any, rows: Any = VALIDATION) -> float:
    return float((logits[rows].argmax(axis=1) == np.array(LABELS)[rows]).mean())


# --- where inputs come from


def test_activations_hold_each_photo_as_it_is_and_its_views(network: Any, tmp_path: Path) -> None:
    from trainer import augment, frozen, model, sources

    trunk = model.cut(network, "first_relu").trunk
    photos = sources.Photos(tiny.photos(LABELS).stack, augment.TRAP)
    done: list[int] = []
    found = sources.activations(frozen.Frozen(trunk), photos, 3, 9, tmp_path / "a.npy", "key", done.append)
    assert found.array.shape == (60, 4, 4, 4, 8)
    assert found.array.dtype == np.float16
    assert sum(done) == 60
    answers = np.asarray(trunk.predict_on_batch(photos.clean(np.array([5, 59]))))
    assert found.clean(np.array([5, 59])) == pytest.approx(answers, abs=5e-3)
    views = np.stack([photos.view(59, np.random.default_rng((9, 59, view))) for view in (1, 2, 3)])
    assert found.array[59, 1:] == pytest.approx(np.asarray(trunk.predict_on_batch(views)), abs=5e-3)
    assert len({each.tobytes() for each in found.array[59]}) == 4


def test_activations_are_computed_once_and_go_on_where_they_stopped(network: Any, tmp_path: Path) -> None:
    from trainer import augment, frozen, model, sources

    runner = frozen.Frozen(model.cut(network, "first_relu").trunk)
    whole: Any = tiny.photos(LABELS).stack

    def compute(stack: Any, key: str = "key") -> Any:
        photos = sources.Photos(stack, augment.TRAP)
        return np.array(sources.activations(runner, photos, 2, 0, tmp_path / "a.npy", key, lambda n: None).array)

    first = compute(whole)
    whole.asked.clear()
    assert (compute(whole) == first).all()
    assert whole.asked == []
    (tmp_path / "a.json").write_text('{"key": "key", "finished": 40}')  # as after a kill
    assert (compute(whole) == first).all()
    assert set(whole.asked) == set(range(40, 60))
    (tmp_path / "a.npy").unlink()
    assert (compute(whole) == first).all()
    whole.asked.clear()
    compute(whole, "another key")
    assert set(whole.asked) == set(range(60))


def test_activations_that_the_disk_cannot_hold_are_refused_before_any_work(
    network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import augment, frozen, model, sources

    runner = frozen.Frozen(model.cut(network, "first_relu").trunk)
    photos = sources.Photos(tiny.photos(LABELS).stack, augment.TRAP)
    wanted = 60 * 3 * 4 * 4 * 8 * 2
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=wanted - 1))
    with pytest.raises(DataError, match=r"fine-tuning needs .* GB below .*fewer --views") as caught:
        sources.activations(runner, photos, 2, 0, tmp_path / "not.npy", "key", lambda count: None)
    assert caught.value.code == "disk full"
    assert not (tmp_path / "not.npy").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=wanted))
    sources.activations(runner, photos, 2, 0, tmp_path / "fits.npy", "key", lambda count: None)


def test_views_are_drawn_among_all_and_the_photo_itself() -> None:
    from trainer.sources import Activations

    inputs = Activations(np.arange(12).reshape(4, 3))
    drawn = {int(inputs.views(np.array([3]), np.random.default_rng(seed))[0]) for seed in range(30)}
    assert drawn == {9, 10, 11}
    assert inputs.clean(np.array([1, 3])).tolist() == [3, 9]


def test_an_epoch_gives_each_photo_once_with_its_label_and_the_same_views_for_the_same_seed() -> None:
    from trainer import augment, sources

    photos = tiny.photos(LABELS)
    source = sources.Photos(photos.stack, augment.TRAP)
    rows = np.random.default_rng(0).permutation(20)

    def all_of(seed: tuple[int, ...]) -> list[Any]:
        return list(sources.epoch(source, rows, photos.labels, np.array([1, 2, 4], np.float32), 8, seed))

    batches = all_of((0, 1))
    assert [len(inputs) for inputs, _, _ in batches] == [8, 8], "the last, smaller one is left out"
    assert np.concatenate([hot.argmax(axis=1) for _, hot, _ in batches]).tolist() == photos.labels[rows[:16]].tolist()
    assert np.concatenate([w for _, _, w in batches]).tolist() == (2.0 ** photos.labels[rows[:16]]).tolist()
    again, other = all_of((0, 1)), all_of((0, 2))
    assert all((a[0] == b[0]).all() for a, b in zip(batches, again, strict=True))
    assert any((a[0] != b[0]).any() for a, b in zip(batches, other, strict=True))


def test_only_a_few_batches_are_ahead_of_the_one_in_use() -> None:
    """30,000 validation photos must not be in memory together."""
    from trainer import sources

    photos = tiny.photos([i % 2 for i in range(400)])
    stack: Any = photos.stack
    source = sources.Photos(stack)
    batches = sources.clean_batches(source, np.arange(400), 8)
    next(batches)
    next(batches)
    assert len(stack.asked) <= 8 * (2 + (os.cpu_count() or 1) + 1)
    rest = [len(batch) for batch in batches]
    assert rest == [8] * 48
    assert len(stack.asked) == 400


@pytest.mark.parametrize(
    ("settings", "from_pixels"),
    [
        pytest.param({}, False, id="the last layers: from what comes before, computed once"),
        pytest.param({"fine_tune_from": "branch_bn"}, False, id="a branch goes past: from where it starts"),
        pytest.param({"fine_tune_from": "first"}, True, id="the first layer: from pixels"),
        pytest.param({"fine_tune_from": None, "learn": "all"}, True, id="everything: from pixels"),
    ],
)
def test_an_epoch_pays_for_no_more_than_it_must(make: Any, settings: dict[str, Any], from_pixels: bool) -> None:
    photos = tiny.photos(LABELS)
    tuner = make(replace(BASE, **settings), photos)
    stack: Any = photos.stack
    trained, logits = tuner.fine_tune(None, TRAIN, VALIDATION, "a")
    assert len(trained.history) == 3
    assert logits.shape == (60, 3)
    looks = 3 * (40 + 18) + 60 if from_pixels else 60 * 3
    assert abs(len(stack.asked) - looks) <= 64 * from_pixels
    assert np.isfinite(logits).all()


def test_activations_larger_than_a_photo_are_not_kept(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer import sources, tuner

    monkeypatch.setattr(tuner, "MOST_VIEW_BYTES", 2 * 4 * 4 * 8 - 1)
    assert isinstance(make()._tuned_stage.source, sources.Photos)
    monkeypatch.setattr(tuner, "MOST_VIEW_BYTES", 2 * 4 * 4 * 8)
    assert isinstance(make()._tuned_stage.source, sources.Activations)


def test_close_ups_know_where_the_animals_are(make: Any) -> None:
    boxes = [[Box(0.5, 0.25, 0.25, 0.5)]] + [[]] * 59
    tuner = make(photos=tiny.photos(LABELS, boxes=boxes))
    assert tuner._pixels._animals[:2] == [(4.0, 2.0, 6.0, 6.0), None]


# --- training


def test_training_learns_and_leaves_the_rest_as_it_was(make: Any, network: Any) -> None:
    tuner = make(replace(BASE, epochs=8, rate=0.03))
    before, original = weights(tuner), network.get_weights()
    trained, logits = tuner.fine_tune(None, TRAIN, VALIDATION, "a")
    after = weights(tuner)
    assert right(logits) > 0.9
    moved = {name for name in before if any((a != b).any() for a, b in zip(before[name], after[name], strict=True))}
    assert moved == {"second", "logits"} == set(trained.weights)
    for name in moved:
        assert all((a == b).all() for a, b in zip(trained.weights[name], after[name], strict=True))
    assert all((a == b).all() for a, b in zip(network.get_weights(), original, strict=True))


def test_new_layers_learn_alone(make: Any) -> None:
    tuner = make(replace(BASE, head=("8",), epochs=6))
    trained, logits = tuner.train_new(TRAIN, VALIDATION, "a")
    assert set(trained.weights) == {"head_1", "logits"}
    assert right(logits) > 0.6


def test_from_scratch_batch_normalisation_learns_too(make: Any) -> None:
    tuner = make(replace(BASE, learn="all", fine_tune_from=None, weights="none"))
    before = weights(tuner)
    tuner.fine_tune(None, TRAIN, VALIDATION, "a")
    for old, new in zip(before["branch_bn"], weights(tuner)["branch_bn"], strict=True):
        assert (old != new).any()


def test_the_same_seed_gives_the_same_result_and_each_training_starts_anew(make: Any) -> None:
    short = replace(BASE, epochs=2, views=1)
    tuner = make(short)
    first = tuner.fine_tune(None, TRAIN, VALIDATION, "a")[1]
    assert (tuner.fine_tune(None, TRAIN, VALIDATION, "b")[1] == first).all()
    assert (make(short, folder="elsewhere").fine_tune(None, TRAIN, VALIDATION, "a")[1] == first).all()
    assert (make(replace(short, seed=1), folder="third").fine_tune(None, TRAIN, VALIDATION, "a")[1] != first).any()


def test_a_finished_training_is_not_done_again(make: Any) -> None:
    first, logits = make().fine_tune(None, TRAIN, VALIDATION, "a")
    photos = tiny.photos(LABELS)
    stack: Any = photos.stack
    second, again = make(photos=photos).fine_tune(None, TRAIN, VALIDATION, "a")
    assert stack.asked == [], "activations and result are found again"
    assert (again == logits).all()
    assert second.history == first.history
    assert second.best == first.best


def test_a_training_goes_on_where_only_what_is_made_of_its_result_was_asked_for_otherwise(make: Any) -> None:
    first, _ = make(replace(BASE, wanted_precision=0.95)).fine_tune(None, TRAIN, VALIDATION, "a")
    again, _ = make(replace(BASE, wanted_precision=0.8)).fine_tune(None, TRAIN, VALIDATION, "a")
    assert again.history == first.history
    with pytest.raises(ConfigError, match="left by a training with other settings"):
        make(replace(BASE, rate=0.02)).fine_tune(None, TRAIN, VALIDATION, "a")


def test_it_starts_where_it_is_told(make: Any, network: Any) -> None:
    """At a rate of next to nothing it ends there, too."""
    from trainer.probe import Head

    head = Head(np.eye(8, 3, dtype=np.float32), np.array([1.0, 0.0, -1.0], np.float32))
    data = tiny.photos(LABELS)
    expected = head.logits(np.asarray(network.predict(data.stack.batch(range(60)), verbose=0)).mean(axis=(1, 2)))
    settings = replace(BASE, rate=1e-7, epochs=1)
    assert make(settings).fine_tune(head, TRAIN, VALIDATION, "a")[1] == pytest.approx(expected, abs=0.02)
    layers = {"logits": [head.kernel, head.bias]}
    assert make(settings).fine_tune(layers, TRAIN, VALIDATION, "b")[1] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_a_backbone_at_a_smaller_rate_moves_less_with_every_optimizer(make: Any, optimizer: str) -> None:
    def moved(share: float) -> tuple[float, float]:
        settings = replace(BASE, optimizer=optimizer, backbone_rate=share, epochs=1, warm_up=0, rate=1e-3)
        tuner = make(settings, folder=str(share))
        before = weights(tuner)
        tuner.fine_tune(None, TRAIN, NOBODY, "a", 1)
        after = weights(tuner)
        second, logits = (float(np.abs(after[name][0] - before[name][0]).mean()) for name in ("second", "logits"))
        return second, logits

    slow, fast = moved(0.01), moved(1.0)
    assert 0 < slow[0] < 0.05 * fast[0]
    assert slow[1] > 0.3 * fast[1]


def test_a_backbone_at_no_rate_is_frozen(make: Any) -> None:
    assert not make(replace(BASE, backbone_rate=0.0)).learns_backbone
    assert make().learns_backbone


def test_decay_pulls_kernels_but_not_offsets(make: Any) -> None:
    """One Adam step by one AdamW step: they differ by the decay, on kernels only."""
    import keras

    from trainer import optimizers

    kernel, offset = keras.Variable(np.full((2, 2), 3.0)), keras.Variable(np.full(2, 3.0))
    made = optimizers.optimizer(replace(BASE, optimizer="adamw", warm_up=0, rate=0.1), 0.1, 10)
    made.apply([np.zeros((2, 2), np.float32), np.zeros(2, np.float32)], [kernel, offset])
    assert np.asarray(kernel) == pytest.approx(3.0 * (1 - optimizers.WEIGHT_DECAY * 0.1), rel=1e-5)
    assert np.asarray(offset) == pytest.approx(3.0)


def test_the_rate_rises_and_then_falls_along_a_cosine() -> None:
    from trainer import optimizers

    schedule = optimizers._schedule(replace(BASE, epochs=5, warm_up=1), 0.1, 10)
    rates = [float(schedule(step)) for step in (0, 5, 10, 30, 50)]
    assert rates == pytest.approx([0.01, 0.055, 0.1, 0.05, 0.0], abs=1e-4)
    flat = optimizers._schedule(replace(BASE, epochs=1, warm_up=3), 0.1, 10)
    assert float(flat(0)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("balance", "counts", "weights"),
    [
        pytest.param("none", [30, 9, 3], [1, 1, 1], id="as they come"),
        pytest.param("sample", [14, 14, 14], [1, 1, 1], id="each label equally often"),
        pytest.param("loss", [30, 9, 3], [42 / 90, 42 / 27, 42 / 9], id="rare labels weigh more"),
    ],
)
def test_rare_labels_can_count_as_much_as_frequent_ones(
    make: Any, balance: str, counts: list[int], weights: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import sources

    labels = np.array([0] * 30 + [1] * 9 + [2] * 3 + LABELS[42:], dtype=np.intp)
    seen: list[Any] = []
    real = sources.epoch

    def epoch(source: Any, rows: Any, *rest: Any) -> Any:
        seen.append((np.bincount(labels[rows]).tolist(), rest[1].tolist()))
        return real(source, rows, *rest)

    monkeypatch.setattr(sources, "epoch", epoch)
    tuner = make(replace(BASE, balance=balance, epochs=1), tiny.photos(labels.tolist()))
    tuner.fine_tune(None, TRAIN, VALIDATION, "a")
    assert seen[0][0] == counts
    assert seen[0][1] == pytest.approx(weights)


def test_fewer_photos_than_a_batch_are_trained_on(make: Any) -> None:
    trained, _ = make(replace(BASE, batch=64)).fine_tune(None, np.arange(5), VALIDATION, "a")
    assert len(trained.history) == 3
    assert all(np.isfinite([line.loss, line.validation_loss]).all() for line in trained.history)


def test_it_stops_when_validation_gets_no_better_and_keeps_the_best(make: Any) -> None:
    """Labels of chance."""
    from trainer import fine_tune

    chance = np.random.default_rng(0).integers(0, 3, 60)
    settings = replace(BASE, epochs=40, rate=0.05, patience=2)
    trained, logits = make(settings, tiny.photos(chance.tolist(), tiny.coloured(LABELS))).fine_tune(
        None, TRAIN, VALIDATION, "a"
    )
    history = trained.history
    assert len(history) < 40
    assert len(history) - trained.best == 2
    loss = fine_tune.losses(logits[VALIDATION], chance[VALIDATION], settings.smoothing).mean()
    assert loss == pytest.approx(history[trained.best - 1].validation_loss, abs=1e-4)
    assert loss < history[-1].validation_loss


def test_without_validation_it_learns_for_as_long_as_it_is_told(make: Any) -> None:
    """The same first two epochs as in a training of three: the schedule goes by the settings."""
    tuner = make()
    three, _ = tuner.fine_tune(None, TRAIN, VALIDATION, "three")
    two, _ = tuner.fine_tune(None, TRAIN, NOBODY, "two", 2)
    assert [line.loss for line in two.history] == [line.loss for line in three.history[:2]]
    assert two.best == 2
    assert np.isnan(two.history[0].validation_loss)


def test_a_loss_that_is_not_finite_ends_it(make: Any) -> None:
    from trainer.probe import Head

    broken = Head(np.full((8, 3), np.nan, np.float32), np.zeros(3, np.float32))
    with pytest.raises(
        ModelError, match=r"fine-tuning diverged in epoch 1; a --rate lower than 0.01 may help"
    ) as found:
        make().fine_tune(broken, TRAIN, VALIDATION, "a")
    assert found.value.code == "diverged"


def test_half_precision_trains(make: Any) -> None:
    trained, logits = make(replace(BASE, precision="mixed")).fine_tune(None, TRAIN, VALIDATION, "a")
    assert logits.dtype == np.float32
    assert trained.history[-1].loss < trained.history[0].loss
    assert {array.dtype.name for each in trained.weights.values() for array in each} == {"float32"}


MIRRORED = """
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.trainer import test_fine_tune as t
from tests.trainer import tiny_network as tiny
from trainer import devices
from trainer.progress import Steps
from trainer.tuner import Tuner
settings = t.replace(t.BASE, optimizer="sgd", backbone_rate=0.5, augment="none", learn="all", fine_tune_from=None)
for name, scope in (("one", devices.mirrored([])), ("two", devices.mirrored(["CPU:0", "CPU:1"]))):
    tuner = Tuner(tiny.network(), tiny.photos(t.LABELS), settings, Path(sys.argv[1]) / name, Steps(quiet=True), scope)
    logits = tuner.fine_tune(None, t.TRAIN, t.VALIDATION, "a")[1]
    print(tuner._strategy.num_replicas_in_sync if tuner._strategy else 1, *logits[:4].ravel().tolist())
"""


def test_two_devices_learn_what_one_learns(tmp_path: Path) -> None:
    """Two virtual processors in a process of their own: half of each batch goes to each."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FIELDMARK_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (one, *alone), (two, *together) = ([float(word) for word in line.split()] for line in done.stdout.splitlines())
    assert (one, two) == (1, 2)
    assert together == pytest.approx(alone, abs=0.02)
