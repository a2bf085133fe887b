"""The EEG track: states in time, simulated listeners, nulls, and the command that writes analyses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from e2e_content import Outcome, run_cli  # noqa: F401

pytest.importorskip("mne", reason="the extra `eeg` is not installed")

from affectbench.alignment import study_nulls, study_recovery
from affectbench.alignment.features import States, hidden_states, prepared, token_seconds, token_spans
from affectbench.alignment.head import head_model
from affectbench.alignment.recording import band_passed
from affectbench.alignment.simulation import BAND, Plant, drive, simulated
from affectbench.alignment.story import Story, reference_story
from affectbench.alignment.work import Arrays, Task, Workshop
from affectbench.analysis import AnalysisStore, read_analysis
from affectbench.audio_io import SAMPLE_RATE
from affectbench.engine import Engine
from affectbench.errors import AffectbenchError
from affectbench.model_loading import load_from
from affectbench.plan import checkpoint_of
from affectbench.registry import Registry

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def engine() -> Engine:
    registry = Registry(installed=False)
    card = registry.model("reference-audio")
    return Engine(load_from(registry, card, checkpoint_of(card), "cpu"))


@pytest.fixture(scope="module")
def story() -> Story:
    return reference_story(14, segments=2, seed=1)


def made_up(story: Story, points: int = 4, seed: int = 0) -> list[States]:
    """States that nobody computed: smooth noise of its own at each point, a token every 80 ms."""
    rng = np.random.default_rng(seed)
    found = []
    for piece in story.pieces:
        tokens = int(piece.seconds / 0.08)
        spans = np.stack([np.arange(tokens) * 0.08, (np.arange(tokens) + 1) * 0.08], axis=1)
        noise = rng.normal(size=(points, tokens + 4, 12))
        values = (noise[:, :-4] + noise[:, 1:-3] + noise[:, 2:-2]) / 3
        found.append(States(tuple(f"layer {point}" for point in range(points)), values, spans))
    return found


def own_task(root: Path, changes: dict[str, Any]) -> None:
    """The shipped task with changes, as `mine` of a content folder."""
    content = yaml.safe_load((ROOT / "tasks/alignments/reference-eeg.yaml").read_text())
    path = root / "tasks" / "alignments" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(content | {"name": "mine"} | changes))


class TestStates:
    def test_they_are_the_classs_own_hidden_states_at_the_sounds_tokens(
        self, engine: Engine, story: Story
    ) -> None:
        sound = next(iter(story.sounds.values()))[: 3 * SAMPLE_RATE]
        item = prepared(engine.model, "clip", sound)  # type: ignore[arg-type]
        (found,) = hidden_states(engine, item, len(sound))
        batch = engine.model.collate([item])
        with torch.no_grad():
            output = engine.model.decoder(
                inputs_embeds=batch.embeds, attention_mask=batch.mask.long(), output_hidden_states=True
            )
        heard = (item.roles & 4).bool()
        for place in range(len(found.points) - 1):  # Behind the last one stands the final norm.
            expected = output.hidden_states[place][0, heard].double().numpy()
            np.testing.assert_allclose(found.values[place], expected, atol=2e-4)

    def test_tokens_lie_within_the_sound_and_fill_it(self, engine: Engine) -> None:
        for seconds in (1.0, 2.37, 5.0):
            sound = np.random.default_rng(0).normal(size=int(seconds * SAMPLE_RATE)).astype(np.float32) * 0.1
            item = prepared(engine.model, "noise", sound)  # type: ignore[arg-type]
            (found,) = hidden_states(engine, item, len(sound))
            step = token_seconds(engine.model)  # type: ignore[arg-type]
            assert found.spans[0, 0] == 0
            np.testing.assert_allclose(np.diff(found.spans, axis=1), step)
            assert abs(found.spans[-1, 1] - seconds) <= 1.5 * step

    def test_a_number_of_tokens_that_does_not_fit_the_sound_is_an_error(self, engine: Engine) -> None:
        with pytest.raises(AffectbenchError, match=r"for 2\.00 s of sound"):
            token_spans(engine.model, 2 * SAMPLE_RATE, 7)  # type: ignore[arg-type]


class TestListeners:
    PLANT = Plant(point=2, lag=0.3, snr=30.0, components=1)

    def test_the_planted_lag_is_where_eeg_follows_the_layer(self, story: Story) -> None:
        """The oracle: the lag at which the EEG's first component correlates most with what was planted."""
        rate = 100.0
        source = drive(story, made_up(story), self.PLANT, rate)
        recording = simulated(story, source, self.PLANT, head_model(), subject=0, seed=3, rate=rate)
        eeg = band_passed(recording.data[: len(head_model().names)], rate, *BAND)
        first = np.linalg.svd(eeg - eeg.mean(axis=1, keepdims=True), full_matrices=False)[2][0]
        heard = band_passed(source, rate, *BAND)[0]
        heights = [abs(np.corrcoef(heard[: len(heard) - lag], first[lag:])[0, 1]) for lag in range(80)]
        assert max(heights) > 0.8
        assert abs(int(np.argmax(heights)) / rate - self.PLANT.lag) <= 0.03

    def test_listeners_differ_and_the_same_one_hears_the_same_twice(self, story: Story) -> None:
        source = drive(story, made_up(story), self.PLANT, 100.0)

        def listen(subject: int) -> np.ndarray:
            return simulated(
                story, source, self.PLANT, head_model(), subject=subject, seed=0, rate=100.0
            ).data

        one, again, other = listen(0), listen(0), listen(1)
        np.testing.assert_array_equal(one, again)
        assert np.abs(np.corrcoef(one[0], other[0])[0, 1]) < 0.9

    def test_the_sound_is_on_a_channel_that_is_no_eeg(self, story: Story) -> None:
        recording = simulated(story, None, self.PLANT, head_model(), subject=0, seed=0, rate=100.0)
        kinds = dict(zip(recording.names, recording.types, strict=True))
        assert (kinds["Aux5"], kinds["VEOG"]) == ("misc", "eog")
        eeg = [name for name, kind in kinds.items() if kind == "eeg"]
        assert set(eeg) == set(head_model().names)
        start = story.starts["segment-1"]
        sounding = np.arange(recording.data.shape[1]) / 100.0 >= start - 1 / 100.0
        aux = recording.data[recording.names.index("Aux5")]
        assert aux[~sounding].max() == 0 < aux[sounding].max()

    def test_recovery_finds_a_loud_plant(self, story: Story) -> None:
        stage = study_recovery.staged(story, made_up(story), head_model(), snr=5.0)
        for run in range(3):
            found = study_recovery.one_run(stage, run, seed=0)
            point, lag = found["planted"]
            assert found["found"][0, 0] == point
            assert abs(found["found"][0, 1] - lag) <= study_recovery.LAG_WITHIN


def test_permuting_labels_finds_alignment_everywhere_and_a_mismatch_does_not() -> None:
    runs = [study_nulls.one_run(None, 0.97, run, 0)["p"] for run in range(30)]
    rates = dict(zip(study_nulls.NULLS, (np.stack(runs) < 0.05).mean(axis=0), strict=True))
    assert rates["label permutation"] >= 0.9
    assert rates["mismatch"] <= 0.2  # 5 % is expected; more than 6 of 30 comes once in 10,000 times.
    assert rates["subjects"] <= 0.2


@pytest.mark.slow
def test_the_rates_that_the_protocol_asks_of_nulls() -> None:
    """At AR(0.9), over 100 runs: a mismatch calls at most 10 % aligned, permuted labels at least 90 %."""
    runs = [study_nulls.one_run(None, 0.9, run, 1)["p"] for run in range(100)]
    rates = dict(zip(study_nulls.NULLS, (np.stack(runs) < 0.05).mean(axis=0), strict=True))
    assert rates["label permutation"] >= 0.9
    assert max(rates["mismatch"], rates["mismatch, lag taken out"], rates["subjects"]) <= 0.1


class TestWork:
    @staticmethod
    def square(calls: list[int], number: int) -> Arrays:
        calls.append(number)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return {"square": np.array([number**2])}

    def workshop(self, folder: Path, notes: list[str]) -> Workshop:
        return Workshop(folder, "squares", "one", lambda *_: None, notes.append)

    def test_a_run_that_was_stopped_goes_on(self, tmp_path: Path) -> None:
        tasks, calls, notes = [Task(f"square {n}", (n,)) for n in range(6)], [], []  # type: ignore[var-annotated]
        first = self.workshop(tmp_path, notes)
        with pytest.raises(KeyboardInterrupt):
            first.each("squares", self.square, calls, tasks)
        first.close()
        again: list[int] = []
        second = self.workshop(tmp_path, notes)
        found = second.each("squares", self.square, again, tasks)
        assert again == [3, 4, 5]
        assert [int(each["square"][0]) for each in found] == [0, 1, 4, 9, 16, 25]
        assert any("going on" in note for note in notes)
        second.forget()
        assert not list((tmp_path / "partial").glob("squares*"))


class TestCommand:
    def test_an_analysis_is_written_once(
        self,
        run_cli: Callable[..., Outcome],  # noqa: F811
        tmp_path: Path,
    ) -> None:
        ask = ("align", "reference-eeg", "--study", "nulls", "--runs", 10, "--output", tmp_path)
        code, said, complaint = run_cli(*ask)
        assert code == 0, complaint
        (path,) = AnalysisStore(tmp_path).folder.glob("*.json")
        analysis = read_analysis(path)
        assert analysis.kind == "eeg-nulls"  # type: ignore[union-attr]
        assert json.loads(path.read_text())["n"]["runs"] == 10
        assert "It is not valid" in said
        _, said, _ = run_cli(*ask)
        assert "was finished before and kept" in said

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("align", "nowhere"), "nowhere"),
            (("align", "reference-eeg", "--study", "guess"), "guess"),
            (
                ("align", "reference-eeg", "--study", "alignment", "--model", "reference-text"),
                "reference-text",
            ),
        ],
    )
    def test_what_cannot_be_is_named(
        self,
        run_cli: Callable[..., Outcome],  # noqa: F811
        tmp_path: Path,
        arguments: tuple[str, ...],
        message: str,
    ) -> None:
        code, _, complaint = run_cli(*arguments, "--output", tmp_path)
        assert code != 0
        assert message in complaint

    def test_mode_paper_takes_no_key_that_it_would_not_read(
        self,
        run_cli: Callable[..., Outcome],  # noqa: F811
        tmp_path: Path,
    ) -> None:
        own_task(tmp_path, {"mode": "paper"})
        code, _, complaint = run_cli("align", "mine", "--include", tmp_path, "--output", tmp_path / "out")
        assert code != 0
        assert "baseline: mode paper has none" in complaint

    def test_a_task_that_contradicts_itself_says_where(
        self,
        run_cli: Callable[..., Outcome],  # noqa: F811
        tmp_path: Path,
    ) -> None:
        own_task(tmp_path, {"band": [20.0, 1.0]})
        code, _, complaint = run_cli("align", "mine", "--include", tmp_path, "--output", tmp_path / "out")
        assert code != 0
        assert "band: expected a lower and an upper value" in complaint
