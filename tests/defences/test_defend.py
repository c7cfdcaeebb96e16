"""Defended folders are what was chosen, whole, and measured as anybody will load them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from natadv import cli
from natadv.defences import defend as defend_module
from natadv.defences import heads, prefix, sae, words
from natadv.defences.choice_scores import ChoiceScores, prepared_half
from natadv.defences.defend import METHODS, defend
from natadv.defences.folder import write_checkpoint
from natadv.defences.halves import halves_of
from natadv.defences.heads import Ablation, HeadAddress
from natadv.defences.measure import compared
from natadv.defences.network import open_network
from natadv.defences.report import across, drop_left, read_report
from natadv.errors import ConfigError, ModelError, ReportError
from natadv.evaluate.datasets import dataset_named
from natadv.explain.autoencoder import AutoencoderConfig, SparseAutoencoder, save_autoencoder
from natadv.models.resolve import resolve_one
from tests.models.conftest import copied as copied
from tests.models.conftest import open_clip_quick as open_clip_quick
from tests.models.conftest import photographs as photographs
from tests.models.conftest import saved_open_clip as saved_open_clip
from tests.models.conftest import tiny_clip as tiny_clip
from tests.models.conftest import tiny_siglip as tiny_siglip

CHOSEN = "sae: chosen on 14 pictures with 3 words, judged on 14 others with 4 others\n"
FAMILIES = ("tiny_clip", "tiny_siglip", "open_clip_quick")


def network_of(folder):
    spec = resolve_one(str(folder), root=folder.parent, wanted="")
    return open_network(spec, device="cpu", threads=1, batch=8)


def rewritten(network, out, *, tensors, files=None):
    """The network that is loaded from a folder with these changes."""
    out.mkdir()
    write_checkpoint(out, network.spec, tensors=tensors, files=files or {})
    return network_of(out)


def by_hand(network, pictures, ablation):
    """Unit embeddings from the layers one by one; the outputs of ablated heads are replaced."""
    opened = network.encoder.layerwise(network.encoder.prepare(pictures))
    state = opened.first
    for number, layer in enumerate(opened.layers, start=1):
        outputs = layer.attend(state).outputs.clone()
        for head in range(outputs.shape[1]):
            if (number, head + 1) in ablation.ablated:
                outputs[:, head] = ablation.instead[number - 1, head]
        state = layer.join(state, outputs)
    rows = opened.embed(state)
    return (rows / rows.norm(dim=-1, keepdim=True)).detach().numpy()


def test_halves_share_no_group_and_no_word(root, plan_for, tiny_clip):
    dataset = dataset_named("noise", root)
    for seed in range(5):
        settings = plan_for("words", tiny_clip).settings.model_copy(update={"seed": seed})
        choice, judged = halves_of(dataset, settings)
        said = [
            {a.sample.decoy for t in range(3) for a in h.attacked(turn=t)} for h in (choice, judged)
        ]

        assert {s.group for s in choice.samples}.isdisjoint(s.group for s in judged.samples)
        assert len(choice.samples) + len(judged.samples) == dataset.card.rows
        assert set(choice.words).isdisjoint(judged.words)
        assert set(choice.words) | set(judged.words) == set(dataset.card.classes)
        assert said[0] <= set(choice.words)
        assert said[1] <= set(judged.words)
        for half in (choice, judged):
            assert all(a.sample.decoy != half.classes[a.sample.label] for a in half.attacked())


def test_an_ablated_folder_equals_the_pass_without_its_heads(request, photographs, tmp_path):
    for family in FAMILIES:
        network = network_of(request.getfixturevalue(family))
        opened = network.encoder.layerwise(network.encoder.prepare(photographs))
        shape = (
            len(opened.layers),
            opened.layers[0].heads,
            opened.first.shape[-1] // opened.layers[0].heads,
        )
        means = torch.randn(shape, generator=torch.Generator().manual_seed(5))
        some = frozenset({HeadAddress(1, 2), HeadAddress(2, 1), HeadAddress(2, 2)})
        plain = network.embed(photographs)
        for number, instead in enumerate((means, torch.zeros(shape))):
            ablation = Ablation(instead, some)
            out = tmp_path / f"{family}-{number}"
            defended = rewritten(network, out, tensors=ablation.edits(network))

            found = defended.embed(photographs)
            np.testing.assert_allclose(found, by_hand(network, photographs, ablation), atol=2e-5)
            assert np.abs(found - plain).max() > 1e-2


def test_every_head_of_a_layer_at_zero_leaves_the_bias(tiny_clip):
    network = network_of(tiny_clip)
    both = frozenset({HeadAddress(1, 1), HeadAddress(1, 2)})
    edits = Ablation(torch.zeros(2, 2, 16), both).edits(network)
    name = network.names.projection.format(0)

    assert not edits[f"{name}.weight"].any()
    assert torch.equal(edits[f"{name}.bias"], network.parameter(f"{name}.bias"))
    assert network.parameter(f"{name}.weight").any()


def test_heads_are_tried_from_the_right_layer(tiny_clip, plan_for, root):
    """Trying a head must equal ablating it, or the choice is about another network."""
    network = network_of(tiny_clip)
    half = halves_of(dataset_named("noise", root), plan_for("heads", tiny_clip).settings).choice
    choice = prepared_half(network, half, ("a {}.",))
    means = heads.mean_outputs(network, choice.clean)
    before = Ablation(means, frozenset({HeadAddress(1, 1)}))
    tried = [HeadAddress(1, 2), HeadAddress(2, 1), HeadAddress(2, 2)]

    for head, found in zip(tried, heads.try_heads(choice, tried, before), strict=True):
        assert found == heads.scores_now(choice, before.with_head(head))


def test_texts_of_a_prefix_folder_have_the_token_at_its_place(request, root, plan_for, tmp_path):
    for family, place in (("tiny_clip", 1), ("tiny_siglip", 0)):
        folder = request.getfixturevalue(family)
        network = network_of(folder)
        table = network.parameter(network.names.tokens)
        tokenizer = prefix.prefix_tokenizer(network, rows=len(table))
        texts = ["a cat.", "a photo of two very small cats"]
        original = network.encoder.tokenise(texts)["input_ids"]
        vector = torch.randn(32, generator=torch.Generator().manual_seed(9))
        tokens = prefix._tokens(network, tokenizer, texts)
        with torch.no_grad(), prefix._learned(network, tokenizer, vector):
            wanted = network.encoder.embed_tokens(tokens)
        defended = rewritten(
            network,
            tmp_path / family,
            tensors={network.names.tokens: torch.cat([table, vector[None]])},
            files=prefix._files(network, tokenizer, rows=len(table) + 1),
        )

        ids = defended.encoder.tokenise(texts)["input_ids"]
        assert tokenizer.place == place
        assert ids[:, place].tolist() == [len(table)] * 2
        # The shorter text is otherwise the same; the longer one is cut off, and ends as it did.
        assert ids[0, place + 1 : 9].tolist() == original[0, place:8].tolist()
        assert ids[1, -1] == original[1, -1]
        found = defended.encoder.embed_texts(texts)
        unit = wanted / wanted.norm(dim=-1, keepdim=True)
        np.testing.assert_allclose(found, unit.numpy(), atol=1e-5)
        assert np.abs(found - network.encoder.embed_texts(texts)).max() > 1e-3


def autoencoder_for(network, folder, *, kind="relu", layer=1, tokens="all", latents=12, scale=1.0):
    """A folder as natadv train sae writes one, with random directions."""
    generator = torch.Generator().manual_seed(2)
    config = AutoencoderConfig(
        kind=kind,
        layer=layer,
        tokens=tokens,
        width=32,
        latents=latents,
        k=None if kind == "relu" else 3,
    )
    made = SparseAutoencoder(config).requires_grad_(False)
    for tensor, times in ((made.encoder, 1), (made.encoder_bias, 1), (made.decoder, scale)):
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * times)
    made.bias.copy_(torch.randn(32, generator=generator))
    made.threshold.fill_(0.8 if kind == "batch-topk" else -1.0)
    save_autoencoder(folder, made, tower=network.weights, facts={})
    return folder


def test_a_folder_without_latents_is_never_computed_with_them(request, photographs, tmp_path):
    kinds = {"tiny_clip": "topk", "tiny_siglip": "relu", "open_clip_quick": "batch-topk"}
    for family, kind in kinds.items():
        network = network_of(request.getfixturevalue(family))
        tokens = "all" if family == "tiny_siglip" else "patches"
        folder = autoencoder_for(network, tmp_path / f"{family}-sae", kind=kind, tokens=tokens)
        stored = load_file(folder / "model.safetensors")
        latents = [7, 2]
        removal = sae.of_latents(sae.removal_of_all(folder, network), latents)
        files = {"defence.safetensors": removal.content()}
        defended = rewritten(network, tmp_path / family, tensors={}, files=files)

        # The definition, picture by picture and token by token.
        opened = network.encoder.layerwise(network.encoder.prepare(photographs))
        state = opened.state(1).clone()
        for b in range(state.shape[0]):
            for token in range(opened.leading if tokens == "patches" else 0, state.shape[1]):
                x = state[b, token].clone()
                a = (stored["encoder"] @ (x - stored["bias"]) + stored["encoder_bias"]).clamp(min=0)
                least = {"topk": a.sort().values[-3], "batch-topk": 0.8, "relu": 0.0}[kind]
                for latent in latents:
                    if a[latent] >= least:
                        state[b, token] -= a[latent] * stored["decoder"][latent]
        wanted = opened.embed(opened.layers[1](state)).detach()
        wanted = (wanted / wanted.norm(dim=-1, keepdim=True)).numpy()

        np.testing.assert_allclose(defended.embed(photographs), wanted, atol=2e-5)
        nothing = Ablation(torch.zeros(2, 2, 16))
        np.testing.assert_allclose(by_hand(defended, photographs, nothing), wanted, atol=2e-5)
        assert np.abs(network.embed(photographs) - wanted).max() > 1e-3
        assert defended.weights != network.weights


def test_another_or_a_damaged_defence_is_another_model_or_none(tiny_clip, tmp_path):
    network = network_of(tiny_clip)
    whole = sae.removal_of_all(autoencoder_for(network, tmp_path / "sae"), network)
    first, second = (sae.of_latents(whole, chosen).content() for chosen in ([1], [2]))
    out = tmp_path / "defended"
    defended = rewritten(network, out, tensors={}, files={"defence.safetensors": first})
    (out / "defence.safetensors").write_bytes(second)
    assert network_of(out).weights not in (network.weights, defended.weights)
    wrong_layer = replace(whole, layer=9).content()
    for content, said in (
        (first[:50], "cannot be read"),
        (save({"x": torch.zeros(1)}), "expected a defence"),
        (wrong_layer, "is about layer 9"),
        # Each of these would load, and then take nothing out, or something else.
        (replace(whole, threshold=torch.tensor(torch.nan)).content(), "expected a defence"),
        (replace(whole, k=0).content(), "expected a defence"),
        (replace(whole, k=13).content(), "expected a defence"),
        (replace(whole, chosen=whole.chosen - 1).content(), "expected a defence"),
        (replace(whole, chosen=whole.chosen[:0], decoder=whole.decoder[:0]).content(), "expected"),
        (replace(whole, encoder_bias=whole.encoder_bias[:1]).content(), "expected a defence"),
        (replace(whole, decoder=whole.decoder[:1]).content(), "expected a defence"),
    ):
        (out / "defence.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match=said):
            network_of(out)


def test_an_autoencoder_of_another_tower_is_refused(tiny_clip, tiny_siglip, tmp_path):
    network = network_of(tiny_clip)
    folder = autoencoder_for(network_of(tiny_siglip), tmp_path / "other")
    with pytest.raises(ModelError, match="that of tiny-clip is"):
        sae.removal_of_all(folder, network)
    folder = autoencoder_for(network, tmp_path / "damaged")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-4] + b"NaNs")
    with pytest.raises(ModelError, match="the file is damaged"):
        sae.removal_of_all(folder, network)
    folder = autoencoder_for(network, tmp_path / "embedding", tokens="embedding")
    with pytest.raises(ModelError, match="reads 'embedding'"):
        sae.removal_of_all(folder, network)


def test_latents_are_removed_if_that_helps_and_not_if_it_harms(tiny_clip, plan_for, tmp_path):
    """To first order, a small step against a direction that helps is one that harms."""
    found = []
    for sign in (1, -1):
        scale = 0.01 * sign
        folder = autoencoder_for(network_of(tiny_clip), tmp_path / f"sae{sign}", scale=scale)
        settings = (f"autoencoder={folder}", "clean_budget=0.9", "numbers=[1]")
        # Refused, not written, if it harms.
        with suppress(ConfigError):
            found.append(defend(plan_for("sae", tiny_clip, *settings)))
    (report,) = found
    (tried,) = report.facts["tried"]
    assert len(report.facts["latents"]) == 1
    assert tried["truth"] >= report.facts["before"]["truth"]
    assert "Only natadv applies" in report.caveat
    with pytest.raises(ModelError, match="has latents removed already"):
        defend(plan_for("sae", tmp_path / "out", *settings, out=tmp_path / "twice"))


def test_a_prefix_needs_a_tokenizer_of_its_own(open_clip_quick, plan_for, root):
    with pytest.raises(ModelError, match="take --method heads or words"):
        prefix.prefix_tokenizer(network_of(open_clip_quick), rows=49408)


def test_each_method_writes_another_model_and_says_what_it_cost(tiny_clip, plan_for, tmp_path):
    before = {path: path.read_bytes() for path in tiny_clip.iterdir()}
    hashes = set()
    methods = [method for method in METHODS if method != "sae"]
    for method in methods:
        out = tmp_path / method
        report = defend(plan_for(method, tiny_clip, out=out))
        hashes |= {report.weights_before, report.weights_after}

        assert network_of(out).weights == report.weights_after
        assert read_report(out) == report
        assert report.judged.pictures == 14
        assert sum(part.pictures for part in report.parts.values()) == 14
        assert "natadv defend" in (out / "README.md").read_text()
        assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    assert len(hashes) == 1 + len(methods)
    assert {path: path.read_bytes() for path in tiny_clip.iterdir()} == before
    table = across([read_report(tmp_path / method) for method in methods])
    assert table.count("\n") == len(methods) + 2


def test_numbers_before_and_after_are_counted_by_hand(tiny_clip, root, plan_for):
    network = network_of(tiny_clip)
    judged = halves_of(dataset_named("noise", root), plan_for("words", tiny_clip).settings).judged
    first = defend_module.answers_of(network, judged, templates=("a {}.",))
    network.parameter("visual_projection.weight").data.neg_()
    second = defend_module.answers_of(network, judged, templates=("a {}.",))
    found = compared(first, second)

    def right(answers):
        return np.array(list(answers.truth)) == np.array(list(answers.prediction))

    clean, attacked, reading = (
        [right(getattr(answers, name)) for answers in (first, second)]
        for name in ("clean", "attacked", "reading")
    )
    n = len(judged.samples)
    for part, (a, b) in zip(
        (found.clean, found.attacked, found.reading), (clean, attacked, reading), strict=True
    ):
        assert part.before.value == pytest.approx(a.sum() / n)
        assert part.after.value == pytest.approx(b.sum() / n)
        assert part.change.value == pytest.approx((b.sum() - a.sum()) / n)
        assert part.change.low <= part.change.value <= part.change.high
    drops = [(clean[i].sum() - attacked[i].sum()) / n for i in (0, 1)]
    assert (found.drop.before.value, found.drop.after.value) == pytest.approx(drops)
    assert found.drop.change.value == pytest.approx(drops[1] - drops[0])
    said = np.array(list(second.attacked.prediction)) == np.array(list(second.attacked.decoy))
    assert found.said_word.after.value == pytest.approx(said.mean())
    assert set(first.reading.truth) <= set(judged.words)
    # Of the same pictures, in one order.
    assert list(first.reading.id) == list(first.attacked.id)
    assert list(first.reading.truth) == list(first.attacked.decoy)


def test_a_killed_run_leaves_no_half_folder(tiny_clip, plan_for, tmp_path, monkeypatch):
    plan = plan_for("heads", tiny_clip)
    seen = []

    def killed(*args, **kwargs):
        seen.append(defend_module.__name__)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    original = defend_module.answers_of
    monkeypatch.setattr(defend_module, "answers_of", killed)
    with pytest.raises(KeyboardInterrupt):
        defend(plan)
    assert not plan.out.exists()

    defend(plan)
    assert read_report(plan.out).method == "heads"
    old = read_report(plan.out)
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        defend(replace(plan, force=True))
    assert read_report(plan.out) == old


def test_a_killed_training_resumes_and_ends_with_the_same_weights(
    tiny_clip, plan_for, tmp_path, monkeypatch
):
    whole = defend(plan_for("words", tiny_clip, out=tmp_path / "whole"))
    plan = plan_for("words", tiny_clip, out=tmp_path / "killed")
    loss = words.WordTraining.loss

    def killed(training, step):
        if step == 3:
            raise KeyboardInterrupt
        return loss(training, step)

    monkeypatch.setattr(words.WordTraining, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        defend(plan)
    assert not plan.out.exists()
    slower = replace(plan, settings=plan.settings.model_copy(update={"rate": 1e-5}))
    with pytest.raises(ConfigError, match=r"rate 0.*, or delete .*killed.training"):
        defend(slower)
    monkeypatch.setattr(words.WordTraining, "loss", loss)
    resumed = defend(plan)

    assert "resuming after step 2 of 4" in plan.stream.getvalue()
    assert resumed.weights_after == whole.weights_after
    assert resumed.judged == whole.judged


def test_words_train_the_layers_of_the_picture_tower_alone(tiny_clip, plan_for, tmp_path):
    defend(plan_for("words", tiny_clip, out=tmp_path / "words"))
    before, after = network_of(tiny_clip), network_of(tmp_path / "words")
    changed = {
        name
        for name, parameter in before.module.named_parameters()
        if not torch.equal(parameter, after.parameter(name))
    }

    assert changed
    assert all(name.startswith("vision_model.encoder.layers.") for name in changed)


def test_reports_about_other_pictures_are_not_compared(tiny_clip, plan_for, tmp_path):
    report = defend(plan_for("heads", tiny_clip))
    with pytest.raises(ReportError, match="differ in judged_words"):
        across([report, report.model_copy(update={"judged_words": ("other",)})])
    larger = report.model_copy(update={"settings": report.settings | {"letters": [1, 9]}})
    with pytest.raises(ReportError, match="differ in letters"):
        across([report, larger])
    with pytest.raises(ReportError, match="natadv defend has made"):
        read_report(tmp_path)


def test_a_share_of_no_drop_is_no_number(tiny_clip, plan_for):
    part = defend(plan_for("heads", tiny_clip)).judged
    zero = part.drop.before.model_copy(update={"value": 0.0})
    without = part.model_copy(update={"drop": part.drop.model_copy(update={"before": zero})})

    assert np.isnan(drop_left(without))


def test_weights_that_are_not_there_are_an_error(tiny_clip, tmp_path):
    network = network_of(tiny_clip)
    with pytest.raises(ModelError, match="holds no weights called nothing"):
        rewritten(network, tmp_path / "x", tensors={"nothing": torch.zeros(1)})


def test_heads_are_chosen_by_gain_within_the_budget_of_the_start(monkeypatch, plan_for, tiny_clip):
    """The second head may not cost what the first has left over, and the third gains too little."""
    first, costly, second, third = (HeadAddress(1, head) for head in range(1, 5))
    table = [
        {first: (0.86, 0.5), costly: (0.9, 0.45), second: (0.9, 0.44), third: (0.9, 0.43)},
        {costly: (0.84, 0.7), second: (0.86, 0.6), third: (0.86, 0.5)},
        {costly: (0.86, 0.61), third: (0.86, 0.605)},
    ]

    def tried(half, left, ablation):
        scores = table[len(ablation.ablated)]
        return [ChoiceScores(scores[h][0], 0.5, scores[h][1]) for h in left]

    monkeypatch.setattr(heads, "try_heads", tried)
    settings = plan_for(
        "heads", tiny_clip, "most_heads=3", "clean_budget=0.05", "least_gain=0.02"
    ).settings
    nothing = Ablation(torch.zeros(1, 4, 2))
    rounds = heads._rounds(None, nothing, ChoiceScores(0.9, 0.5, 0.4), settings)

    assert [chosen.head for chosen in rounds] == [first, second]


def test_means_are_over_pictures_and_tokens(tiny_clip, photographs):
    network = network_of(tiny_clip)
    batches = list(network.prepared(photographs))
    found = heads.mean_outputs(network, batches)

    outputs = []
    for pixels in batches:
        opened = network.encoder.layerwise(pixels)
        outputs.append(opened.layers[0].attend(opened.first).outputs.detach().numpy())
    expected = np.concatenate(outputs).mean(axis=(0, 2))
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)


def test_each_turn_writes_other_words(tiny_clip, root, plan_for):
    half = halves_of(dataset_named("noise", root), plan_for("words", tiny_clip).settings).judged
    turns = [[found.sample.decoy for found in half.attacked(turn=turn)] for turn in (0, 0, 1)]

    assert turns[0] == turns[1] != turns[2]


def test_no_head_within_the_budget_is_an_error(tiny_clip, plan_for):
    plan = plan_for("heads", tiny_clip, "least_gain=0.9")
    with pytest.raises(ConfigError, match="no head can be ablated"):
        defend(plan)
    assert not plan.out.exists()


def test_mistakes_are_reported_in_one_line(root, tiny_clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(root)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    damaged = autoencoder_for(network_of(tiny_clip), tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"")
    usual = {
        "model": str(tiny_clip),
        "data": "noise",
        "method": "heads",
        "out": str(tmp_path / "o"),
    }
    cases = [
        ({"set": "stepz=1", "method": "words"}, "did you mean 'steps'"),
        ({"set": "letters=[2, 1]"}, "expected [least, most]"),
        ({"set": "recipes=[post-its]"}, "did you mean 'post-it'"),
        ({"data": "few"}, "expected 4 or more"),
        ({"data": "photographed"}, "name a dataset of scenario clean"),
        ({"data": "wild"}, "attacked already (natural)"),
        ({"limit": "1"}, "expected pictures of two or more groups"),
        ({"method": "sae", "set": "autoencoder=nowhere"}, "that natadv train sae has written"),
        ({"method": "sae", "set": f"autoencoder={damaged}"}, "copy the whole folder again"),
        ({"data": "nothing"}, "nothing"),
        ({"out": str(tmp_path / "full")}, "replace it with --force"),
        ({"model": "mini-clip@paper"}, "fixtures"),
        ({"method": "sae"}, "add --set autoencoder=VALUE"),
    ]
    for changes, part in cases:
        given = usual | changes
        code = cli.main(["defend", *(w for k, v in given.items() for w in (f"--{k}", v))])
        said = capsys.readouterr()
        assert code == 4, changes
        assert part in said.err
        # What the choice was made on may stand before it.
        assert said.err.removeprefix(CHOSEN).count("\n") == 1, said.err
    assert not (tmp_path / "o").exists()


def test_the_commands_print_what_was_measured(root, tiny_clip, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(root)
    out = tmp_path / "defended"
    arguments = ["--model", str(tiny_clip), "--data", "noise", "--method", "heads"]
    more = ["--out", str(out), "--device", "cpu", "--threads", "1", "--set", "clean_budget=0.9"]

    assert cli.main(["defend", *arguments, *more, "least_gain=0", "most_heads=1"]) == 0
    printed = capsys.readouterr().out
    stored = json.loads((out / "defence-report.json").read_text())
    assert f"{stored['judged']['clean']['after']['value']:.3f}" in printed
    assert f"pytest suites/test_classification.py --model {out}" in printed
    assert cli.main(["defences", str(out)]) == 0
    assert "| heads |" in capsys.readouterr().out
