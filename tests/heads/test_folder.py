from __future__ import annotations

import hashlib
import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from natadv.errors import ModelError
from natadv.heads.decoder import Decoder
from natadv.heads.folder import (
    AnsweringHead,
    load_head,
    save_head,
)
from natadv.heads.vocabulary import Vocabulary, encode

TOWER, OTHER = "ab" * 32, "cd" * 32


@pytest.fixture
def saved_decoder(tmp_path, decoder):
    save_head(tmp_path / "decoder", decoder, tower=TOWER, facts={"steps": 3})
    return tmp_path / "decoder"


@pytest.fixture
def saved_answering(tmp_path, answering):
    save_head(tmp_path / "mcan", answering, tower=TOWER, facts={"steps": 3})
    return tmp_path / "mcan"


@pytest.fixture(params=["saved_decoder", "saved_answering"])
def folder(request):
    return request.getfixturevalue(request.param)


def sign(folder):
    """Write the hashes anew, as somebody would who changes a head on purpose."""
    path = folder / "config.json"
    found = json.loads(path.read_text())
    for name in found["files"]:
        found["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    path.write_text(json.dumps(found))


def change_weights(folder, change):
    path = folder / "model.safetensors"
    stored = load_file(path)
    change(stored)
    save_file(stored, path, metadata={"format": "pt"})
    sign(folder)


def test_decoder_comes_back_as_it_was(saved_decoder, make_decoder, noise):
    decoder = make_decoder()
    features, condition = [noise(2, 3, 3, 12, seed=i) for i in range(3)], noise(2, 10)

    found = load_head(saved_decoder, tower=TOWER)
    assert found.config == decoder.config
    assert torch.equal(found(features, condition), decoder(features, condition))


def test_mcan_comes_back_with_its_words_and_answers(saved_answering, answering, noise):
    features, words = (
        noise(2, 3, 3, 12),
        torch.from_numpy(encode(["What is the cat?", "how many"], answering.words)),
    )

    found = load_head(saved_answering, tower=TOWER)
    assert (found.words, found.answers) == (answering.words, answering.answers)
    assert found.mcan.config == answering.mcan.config
    assert torch.equal(found.mcan(features, words), answering.mcan(features, words))


def test_every_choice_of_a_decoder_comes_back(tmp_path, make_decoder):
    decoder = make_decoder(
        layers=(2, 3, 4),
        widths=(6, 12, 24),
        grid=4,
        upsample="refined",
        class_token=True,
        threshold=0.3,
    )
    save_head(tmp_path, decoder, tower=TOWER, facts={})

    assert load_head(tmp_path, tower=TOWER).config == decoder.config


def test_loaded_head_is_ready_for_inference(folder):
    head = load_head(folder, tower=TOWER)
    module = head if isinstance(head, Decoder) else head.mcan

    assert not any(part.training for part in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert {parameter.device.type for parameter in module.parameters()} == {"cpu"}


def test_loading_draws_no_random_numbers(folder):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    load_head(folder, tower=TOWER)

    assert torch.equal(torch.get_rng_state(), before)


def test_folder_holds_the_files_of_its_kind(saved_decoder, saved_answering):
    shared = {"config.json", "model.safetensors", "training.json"}

    assert {path.name for path in saved_decoder.iterdir()} == shared
    assert {p.name for p in saved_answering.iterdir()} == shared | {"words.json", "answers.json"}
    assert json.loads((saved_decoder / "training.json").read_text()) == {"steps": 3}


def test_same_head_is_the_same_bytes(saved_answering, tmp_path, answering):
    save_head(tmp_path / "again", answering, tower=TOWER, facts={"steps": 3})

    for path in saved_answering.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_head_is_replaced_in_place(saved_answering, make_mcan, answering):
    (saved_answering / "curve.png").write_bytes(b"kept")
    head = AnsweringHead(make_mcan(seed=6), answering.words, answering.answers)
    save_head(saved_answering, head, tower=OTHER, facts={})

    found = load_head(saved_answering, tower=OTHER)
    assert torch.equal(found.mcan.answer.weight, head.mcan.answer.weight)
    assert (saved_answering / "curve.png").read_bytes() == b"kept"


def test_half_precision_is_stored_as_float32(tmp_path, decoder):
    save_head(tmp_path, decoder.half(), tower=TOWER, facts={})

    assert load_head(tmp_path, tower=TOWER).film_mul.weight.dtype == torch.float32


@pytest.mark.parametrize("model", ["mini-clip", None])
def test_head_of_another_tower_is_refused_with_the_command_that_trains_one(folder, model):
    task = "vqa" if folder.name == "mcan" else "segmentation"
    named = {"model": model} if model else {}

    with pytest.raises(ModelError) as caught:
        load_head(folder, tower=OTHER, **named)
    message = str(caught.value)
    assert TOWER[:12] in message
    assert f"that of {model or 'the model'} is {OTHER[:12]}" in message
    assert f"natadv train {task} --model {model or 'NAME'} --data NAME --out DIR" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stored, name: stored.pop(name), "{} missing"),
        (lambda stored, name: stored.update(more=torch.ones(2)), "more not known to this head"),
        (lambda stored, name: stored.update({name: torch.ones(2)}), "{} of another shape"),
        (lambda stored, name: stored.update({name: stored[name].half()}), "{} not float32"),
        (lambda stored, name: stored[name].view(-1)[-1:].fill_(float("nan")), "{} not finite"),
        (lambda stored, name: stored[name].view(-1)[:1].fill_(float("inf")), "{} not finite"),
    ],
    ids=["missing", "unknown", "shape", "dtype", "nan", "inf"],
)
def test_tensors_that_are_not_of_this_head_are_refused(folder, change, message):
    name = "lstm.weight_hh_l0" if folder.name == "mcan" else "layers.1.mlp.fc1.weight"
    change_weights(folder, lambda stored: change(stored, name))

    with pytest.raises(ModelError, match=rf"belong together: {message.format(name)}; copy the"):
        load_head(folder, tower=TOWER)


def test_many_faults_are_counted(saved_decoder):
    change_weights(saved_decoder, lambda stored: [stored.pop(n) for n in [*stored][:7]])

    with pytest.raises(ModelError, match=r"and 4 more missing;"):
        load_head(saved_decoder, tower=TOWER)


def test_config_of_another_size_is_refused(saved_answering):
    path = saved_answering / "config.json"
    path.write_text(path.read_text().replace('"answers": 5', '"answers": 6'))

    with pytest.raises(ModelError, match=r"answer.bias, answer.weight of another shape"):
        load_head(saved_answering, tower=TOWER)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("words.json", r"reads 9 words \(with PAD and UNK\), its vocabulary has 5"),
        ("answers.json", r"chooses among 5 answers, its answer vocabulary has 3"),
    ],
)
def test_vocabulary_of_another_size_is_refused(saved_answering, name, message):
    (saved_answering / name).write_text('["a", "b", "c"]')
    sign(saved_answering)

    with pytest.raises(ModelError, match=rf"mcan: .*{message}"):
        load_head(saved_answering, tower=TOWER)


@pytest.mark.parametrize("name", ["words.json", "answers.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected JSON"),
        ("[" * 20_000, "expected JSON"),
        ('{"a": 1}', "a JSON list of texts"),
        ('["a", 2]', "a JSON list of texts"),
        ('["a", "b", "c", "d", "d"]', "got 'd' 2 times"),
        ('["a", ""]', "an empty one at 1"),
        ("[]", "got none"),
    ],
)
def test_vocabulary_that_is_none_is_refused(saved_answering, name, content, message):
    (saved_answering / name).write_text(content)
    sign(saved_answering)

    with pytest.raises(ModelError, match=message):
        load_head(saved_answering, tower=TOWER)


def test_vocabulary_of_another_head_is_refused(saved_answering):
    path = saved_answering / "answers.json"
    path.write_text(path.read_text().replace("yes", "yep"))

    with pytest.raises(ModelError, match=r"answers.json: sha256 is .* damaged or of another head"):
        load_head(saved_answering, tower=TOWER)


def test_weights_that_are_no_safetensors_are_refused(folder):
    class Bomb:
        def __reduce__(self):
            return (print, ("it ran",))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    sign(folder)

    with pytest.raises(ModelError, match=r"expected a whole safetensors file, got .* do not open"):
        load_head(folder, tower=TOWER)


def test_weights_that_are_cut_off_are_refused(folder):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    for kept in (0, 4, 60, -1):
        path.write_bytes(content[:kept])

        with pytest.raises(ModelError, match=r"model.safetensors: sha256 is"):
            load_head(folder, tower=TOWER)
        sign(folder)
        with pytest.raises(ModelError, match="expected a whole safetensors file"):
            load_head(folder, tower=TOWER)


def test_weights_that_are_not_finite_are_not_saved(tmp_path, decoder):
    with torch.no_grad():
        decoder.film_mul.bias[0] = float("nan")

    with pytest.raises(ModelError, match=r"not saved: film_mul.bias not finite"):
        save_head(tmp_path / "head", decoder, tower=TOWER, facts={})
    assert not (tmp_path / "head").exists()


@pytest.mark.parametrize("facts", [{"loss": float("nan")}, {"model": object()}])
def test_facts_that_are_no_json_are_refused(tmp_path, decoder, facts):
    with pytest.raises(ModelError, match="vocabulary or facts cannot be written as JSON"):
        save_head(tmp_path / "head", decoder, tower=TOWER, facts=facts)
    assert not (tmp_path / "head").exists()


@pytest.mark.parametrize("tower", ["", "mini-clip", "AB" * 32, "ab" * 31])
def test_tower_without_a_fingerprint_is_refused(tmp_path, decoder, tower):
    with pytest.raises(ModelError, match="expected the fingerprint of the tower's model"):
        save_head(tmp_path, decoder, tower=tower, facts={})


def test_folder_that_cannot_be_written_is_named(tmp_path, decoder):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ModelError, match=r"file: the head cannot be written"):
        save_head(tmp_path / "file", decoder, tower=TOWER, facts={})


def test_head_whose_vocabulary_does_not_fit_cannot_be_made(mcan, answering):
    with pytest.raises(ModelError, match="its vocabulary has 3"):
        AnsweringHead(mcan, Vocabulary(("one",)), answering.answers)
    with pytest.raises(ModelError, match="its answer vocabulary has 4"):
        AnsweringHead(mcan, answering.words, answering.answers[:4])


def test_relevance_is_grad_cam_for_the_logit_of_the_answer(answering, noise):
    features = noise(4, 3, 2, 12)
    questions = ["what is the cat", "is the cat", "how many", "what colour"]
    answers = ["red", "no", "a zebra", "2"]
    found = answering.relevance(features.numpy(), questions, answers)
    features.requires_grad_()
    logits = answering.mcan(features, torch.from_numpy(encode(questions, answering.words)))

    for picture, answer in enumerate(answers):
        if answer not in answering.answers:
            # The head cannot say it, so nothing speaks for it.
            assert not found[picture].any()
            continue
        logit = logits[picture, answering.answers.index(answer)]
        slopes = torch.autograd.grad(logit, [features], retain_graph=True)[0][picture]
        weights = slopes.mean(dim=(0, 1))
        expected = (features[picture] * weights).sum(dim=-1).clamp(min=0)
        assert found[picture] == pytest.approx(expected.detach().numpy(), rel=1e-3, abs=1e-7)
    assert found.max() > 0
