"""Judges: what each kind makes of texts, what is no judgement, and what a card may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judge_server import Endpoint, Reply

from affectbench.errors import AffectbenchError
from affectbench.judge_card import JudgeCard
from affectbench.judges.chat import ChatJudge
from affectbench.judges.hub import HubJudge
from affectbench.judges.judgement import NONE, Judgement, codes_of, decided
from affectbench.judges.loading import load_judge
from affectbench.judges.local import LocalJudge, read_classifier
from affectbench.outcomes import ERROR
from affectbench.recipes.judge import Labelled, measure, own_neutral, own_replies, read_labelled, train
from affectbench.registry import Registry
from affectbench.scenarios import own_scenarios

LABELS = ("anger", "sadness", "happiness", "fear", "surprise", "disgust")
SEV = Path(__file__).parents[2] / "shared" / "data" / "sev"


def card(**changes: Any) -> JudgeCard:
    content = {
        "kind": "judge",
        "name": "trial",
        "version": 1,
        "licence": "own",
        "reader": "openai",
        "model": "m",
    }
    return JudgeCard.model_validate(content | changes)


class TestLabels:
    def test_a_judges_labels_become_those_of_the_task(self) -> None:
        mapped = card(label_map={"joy": "happiness", "neutral": None})
        assert codes_of(["joy", "neutral", "none", *LABELS], mapped, LABELS) == [
            2,
            NONE,
            NONE,
            0,
            1,
            2,
            3,
            4,
            5,
        ]

    def test_a_label_that_nobody_mapped_is_refused(self) -> None:
        with pytest.raises(AffectbenchError, match="may answer 'joy', no label of the task"):
            codes_of(["joy", *LABELS], card(), LABELS)

    def test_a_judge_that_cannot_answer_a_label_is_refused(self) -> None:
        with pytest.raises(AffectbenchError, match="cannot answer disgust"):
            codes_of(LABELS[:-1], card(), LABELS)

    def test_probabilities_of_labels_that_mean_the_same_are_added(self) -> None:
        shares = np.array([[0.4, 0.3, 0.3], [0.6, 0.2, 0.2], [0.2, 0.4, 0.4]], dtype=np.float32)
        assert [each.code for each in decided(shares, [0, 1, 1], 2, 0.0)] == [1, 0, 1]
        assert [each.code for each in decided(shares, [0, 1, NONE], 2, 0.45)] == [NONE, 0, NONE]

    def test_probabilities_that_are_not_finite_are_an_error(self) -> None:
        (found,) = decided(np.array([[np.nan, 0.0]], dtype=np.float32), [0, 1], 2, 0.0)
        assert (found.code, found.failure) == (ERROR, "request")


def replies() -> Labelled:
    """Sentences with one telling word each, none of them an emotion's name."""
    telling = {
        "anger": "shout", "sadness": "alone", "happiness": "dance", "fear": "tremble", "surprise": "sudden",
        "disgust": "slime",
    }  # fmt: skip
    rows = [
        (f"I {word} because of the {thing} {k}", label, f"g{k}")
        for label, word in telling.items()
        for k in range(12)
        for thing in ("letter", "garden")
    ]
    texts, labels, groups = zip(*rows, strict=True)
    return Labelled(texts, labels, groups)


class TestLocal:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("judge")
        train(replies(), own_neutral(), "of a test").save(folder / "trial")
        return folder

    def test_it_says_what_it_learnt_and_none_where_nothing_is_expressed(self, folder: Path) -> None:
        judge = load_judge(card(reader="local", checkpoint=str(folder / "trial")), LABELS)
        texts = ["I dance and dance", "I slime because of slime", "The bus leaves at nine.", "zyx wvu"]
        assert [each.code for each in judge.judge(texts)] == [2, 5, NONE, NONE]
        assert judge.judge([]) == []

    def test_what_is_stored_judges_as_what_was_trained(self, folder: Path) -> None:
        again = read_classifier(folder / "trial")
        fresh = train(replies(), own_neutral(), "of a test")
        texts = list(replies().texts)
        assert np.array_equal(again.probabilities(texts), fresh.probabilities(texts))
        assert again.head == fresh.head

    def test_probabilities_are_those_of_scikit_learn(self, folder: Path) -> None:
        from sklearn.linear_model import LogisticRegression

        from affectbench.emotion_words import masked
        from affectbench.judges.local import features
        from affectbench.recipes.judge import STRENGTH

        data, neutral = replies(), own_neutral()
        everything = [*data.texts, *map(masked, data.texts), *neutral]
        vectors = features(at_least=2)
        matrix = vectors.fit_transform(everything)
        gold = [*data.labels, *data.labels, *["none"] * len(neutral)]
        model = LogisticRegression(C=STRENGTH, max_iter=2000).fit(matrix, gold)
        ours = read_classifier(folder / "trial")
        texts = ["I tremble in the garden", "a letter came", "slime"]
        theirs = model.predict_proba(vectors.transform(texts))
        order = [list(model.classes_).index(label) for label in ours.head.labels]
        np.testing.assert_allclose(ours.probabilities(texts), theirs[:, order], atol=2e-3)

    def test_the_same_texts_give_the_same_bytes(self, folder: Path, tmp_path: Path) -> None:
        train(replies(), own_neutral(), "of a test").save(tmp_path)
        for name in ("judge.json", "judge.safetensors"):
            assert (tmp_path / name).read_bytes() == (folder / "trial" / name).read_bytes()

    @pytest.mark.parametrize("name", ["judge.json", "judge.safetensors"])
    def test_a_damaged_file_is_named(self, folder: Path, tmp_path: Path, name: str) -> None:
        train(replies(), own_neutral(), "of a test").save(tmp_path / "trial")
        (tmp_path / "trial" / name).write_bytes((tmp_path / "trial" / name).read_bytes()[:50])
        with pytest.raises(AffectbenchError, match=rf"{name}: no judge can be read from it"):
            LocalJudge(card(reader="local", checkpoint=str(tmp_path / "trial")), LABELS)

    def test_a_missing_folder_is_named(self) -> None:
        with pytest.raises(AffectbenchError, match="there is no folder nowhere beside its card"):
            LocalJudge(card(reader="local", checkpoint="nowhere"), LABELS)

    @pytest.mark.skipif(not SEV.is_dir(), reason="the authors' replies are not on this machine")
    @pytest.mark.slow
    def test_on_the_authors_replies_it_is_right_also_without_emotion_words(self) -> None:
        keys = ("gen_text", "emotion", "skeleton_id")
        learnt = read_labelled(SEV / "sev_accepted_generations.jsonl", *keys)
        others = read_labelled(SEV / "test_set_accepted_generations.jsonl", *keys)
        assert not set(learnt.groups) & set(others.groups)
        found = measure(train(learnt, own_neutral(), "sev"), others)
        assert found.n == 2850
        assert min(found.accuracy, found.masked_accuracy) >= 0.98


class TestHub:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A tiny random BERT classifier, saved as any other checkpoint is."""
        from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

        folder = tmp_path_factory.mktemp("classifier")
        words = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            "i",
            "am",
            "so",
            "was",
            "it",
            "not",
            "good",
            "bad",
        ]
        (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
        BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
        names = [*LABELS[:2], "joy", *LABELS[3:], "neutral"]
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=16, id2label=dict(enumerate(names)),
            label2id={name: k for k, name in enumerate(names)}, initializer_range=2.0,
        )  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(folder)
        return folder

    def judge(self, folder: Path, **changes: Any) -> HubJudge:
        mapping = {"joy": "happiness", "neutral": None}
        return HubJudge(card(reader="hf", checkpoint=str(folder), label_map=mapping, **changes), LABELS)

    def test_it_says_what_transformers_own_pipeline_says(self, folder: Path) -> None:
        from transformers import pipeline

        texts = ["i am so bad", "it was good", "not so bad", "i was " * 40, "it"]
        peer = pipeline("text-classification", model=str(folder), truncation=True)
        said = [each["label"] for each in peer(texts)]
        mapping = {"joy": 2, "neutral": NONE} | {name: k for k, name in enumerate(LABELS)}
        assert [each.code for each in self.judge(folder).judge(texts)] == [mapping[name] for name in said]
        assert len(set(said)) > 1

    def test_below_the_threshold_nothing_is_expressed(self, folder: Path) -> None:
        found = self.judge(folder, threshold=0.9999).judge(["i am so bad", "it was good"])
        assert {each.code for each in found} == {NONE}

    def test_weights_that_are_not_finite_give_errors_and_no_judgement(self, folder: Path) -> None:
        judge = self.judge(folder)
        judge._network.classifier.bias.data[:] = float("nan")
        assert [each.code for each in judge.judge(["good"])] == [ERROR]

    def test_a_folder_that_is_no_classifier_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(AffectbenchError, match="cannot be loaded as a text classifier"):
            HubJudge(card(reader="hf", checkpoint=str(tmp_path)), LABELS)


def said(emotion: str) -> str:
    return json.dumps({"emotion": emotion, "why": "it sounds so"})


class TestChat:
    def judge(self, server: Endpoint, cache: Path | None = None, **changes: Any) -> ChatJudge:
        self.waited: list[float] = []
        return ChatJudge(card(base_url=server.url, **changes), LABELS, cache, self.waited.append)

    def test_it_asks_at_temperature_0_and_reads_the_answer(self) -> None:
        with Endpoint(lambda text, _: Reply(said("fear" if "dark" in text else "none"))) as server:
            found = self.judge(server).judge(["It is dark.", "It is Monday.", "  "])
        assert found == [Judgement(3), Judgement(NONE), Judgement(NONE)]
        assert len(server.asked) == 2, "a blank reply expresses nothing; nobody is asked"
        asked = server.asked[0]
        assert (asked["temperature"], asked["model"], asked["max_tokens"]) == (0, "m", 200)
        assert all(label in asked["messages"][0]["content"] for label in (*LABELS, "none"))

    @pytest.mark.parametrize(
        "words",
        [
            "```json\n" + said("anger") + "\n```",
            "```\n" + said("Anger") + "```",
            "Sure! " + said("anger") + " Anything else?",
            '{"emotion": " ANGER "}',
        ],
    )
    def test_fences_and_words_around_the_answer_do_no_harm(self, words: str) -> None:
        with Endpoint(lambda *_: Reply(words)) as server:
            assert self.judge(server).judge(["No!"]) == [Judgement(0)]

    @pytest.mark.parametrize(
        "words",
        ["anger", "", "{'emotion': 'anger'}", '{"mood": "anger"}', '{"emotion": 3}', said("envy"), "[1]"],
    )
    def test_an_answer_that_cannot_be_read_is_a_parse_failure_and_no_label(self, words: str) -> None:
        with Endpoint(lambda *_: Reply(words)) as server:
            (found,) = self.judge(server).judge(["No!"])
        assert (found.code, found.failure) == (ERROR, "parse")
        assert found.reason

    @pytest.mark.parametrize("status", [429, 500, 503, 408])
    def test_a_request_that_fails_is_sent_again_later_and_later(self, status: int) -> None:
        with Endpoint(lambda _, n: Reply(said("anger")) if n == 2 else Reply(status=status)) as server:
            assert self.judge(server).judge(["No!"]) == [Judgement(0)]
        assert (len(server.asked), self.waited) == (3, [0.5, 1.0])

    def test_the_endpoint_may_say_how_long_to_wait(self) -> None:
        busy = Reply(status=429, headers={"retry-after": "7"})
        with Endpoint(lambda _, n: Reply(said("anger")) if n else busy) as server:
            self.judge(server).judge(["No!"])
        assert self.waited == [7.0]

    def test_after_the_last_try_there_is_an_error_that_is_told_apart(self) -> None:
        with Endpoint(lambda *_: Reply(status=500)) as server:
            (found,) = self.judge(server, retries=2).judge(["No!"])
        assert (found.code, found.failure, len(server.asked)) == (ERROR, "request", 3)

    def test_a_request_that_is_refused_for_its_content_is_not_sent_again(self) -> None:
        with Endpoint(lambda *_: Reply(status=400, words="filtered")) as server:
            (found,) = self.judge(server).judge(["No!"])
        assert (found.code, found.failure, len(server.asked)) == (ERROR, "request", 1)
        assert "filtered" in found.reason

    @pytest.mark.parametrize("status", [401, 403, 404])
    def test_a_key_or_model_that_is_refused_ends_it(self, status: int) -> None:
        with (
            Endpoint(lambda *_: Reply(status=status)) as server,
            pytest.raises(AffectbenchError, match="refuses"),
        ):
            self.judge(server).judge(["No!"])

    def test_an_endpoint_that_does_not_answer_in_time_is_an_error(self) -> None:
        with Endpoint(lambda *_: Reply(said("anger"), delay=0.6)) as server:
            (found,) = self.judge(server, timeout_s=0.15, retries=1).judge(["No!"])
        assert (found.code, found.failure, len(self.waited)) == (ERROR, "request", 1)

    def test_a_body_that_is_no_json_is_an_error(self) -> None:
        with Endpoint(lambda *_: Reply(raw="<html>")) as server:
            (found,) = self.judge(server, retries=0).judge(["No!"])
        assert found.code == ERROR

    def test_answers_are_kept_by_content_and_failures_are_not(self, tmp_path: Path) -> None:
        answers = {"No!": said("anger"), "Hm.": "what?"}
        with Endpoint(lambda text, _: Reply(answers[text])) as server:
            first = self.judge(server, tmp_path).judge(["No!", "Hm."])
            answers["Hm."] = said("surprise")
            second = self.judge(server, tmp_path).judge(["No!", "Hm."])
            assert [each.code for each in first + second] == [0, ERROR, 0, 4]
            assert len(server.asked) == 3
            self.judge(server, tmp_path, max_tokens=50).judge(["No!"])
            self.judge(server, tmp_path, model="other").judge(["No!"])
        assert len(server.asked) == 5, "other settings, and another model, are asked for themselves"
        assert len(list(tmp_path.rglob("*.txt"))) == 4

    def test_no_more_requests_are_under_way_than_allowed(self) -> None:
        with Endpoint(lambda *_: Reply(said("anger"), delay=0.03)) as server:
            found = self.judge(server, concurrency=3).judge([f"No {k}!" for k in range(12)])
        assert {each.code for each in found} == {0}
        assert server.most_at_once <= 3

    def test_without_a_key_for_the_real_endpoint_it_says_what_to_do(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        with pytest.raises(AffectbenchError, match="OPENAI_API_KEY holds no key"):
            ChatJudge(card(), LABELS, None)


def test_the_command_trains_measures_and_writes_a_judge(tmp_path: Path, run_cli: Any) -> None:
    data = replies()
    rows = [
        json.dumps({"gen_text": text, "emotion": label, "skeleton_id": group})
        for text, label, group in zip(data.texts, data.labels, data.groups, strict=True)
    ]
    (tmp_path / "replies.jsonl").write_text("\n".join(rows), encoding="utf-8")
    code, out, _ = run_cli(
        "train-judge", "own", "--texts", tmp_path / "replies.jsonl", "--test", tmp_path / "replies.jsonl",
        "-o", tmp_path / "judges",
    )  # fmt: skip
    assert code == 0
    assert "replies.jsonl: 144 texts, 100.00% as labelled" in out
    (tmp_path / "tasks").mkdir()
    (tmp_path / "judges").rename(tmp_path / "tasks" / "judges")
    found = Registry([tmp_path], installed=False).judge("own")
    assert load_judge(found, LABELS).judge(["I dance"])[0].code == 2


def test_rows_without_text_are_refused_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "replies.jsonl").write_text('{"gen_text": "No!"}\n', encoding="utf-8")
    with pytest.raises(AffectbenchError, match=r"replies.jsonl:1: expected a text under 'emotion'"):
        read_labelled(tmp_path / "replies.jsonl", "gen_text", "emotion", "id")


class TestShipped:
    """The judge of the reference model's language."""

    @pytest.fixture(scope="class")
    def found(self) -> Any:
        shipped = Registry(installed=False).judge("replies")
        return load_judge(shipped, LABELS), read_classifier(shipped.folder or Path())

    def test_it_judges_generated_replies_also_without_their_emotion_words(self, found: Any) -> None:
        measured = measure(found[1], own_replies(400, seed=7)[1])
        assert min(measured.accuracy, measured.masked_accuracy) >= 0.98

    def test_it_finds_no_emotion_in_the_scenarios(self, found: Any) -> None:
        said = [each.code for each in found[0].judge([each.events["neutral"] for each in own_scenarios()])]
        assert said.count(NONE) / len(said) >= 0.99

    @pytest.mark.slow
    def test_it_can_be_made_again(self, found: Any) -> None:
        again = train(own_replies()[0], own_neutral(), "again")
        texts = list(own_replies(200, seed=3)[1].texts)
        assert again.head.vocabulary == found[1].head.vocabulary
        np.testing.assert_allclose(again.probabilities(texts), found[1].probabilities(texts), atol=1e-3)
