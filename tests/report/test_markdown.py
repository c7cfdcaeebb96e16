"""Markdown is cut to what GitHub takes, and nothing in it is markup that somebody else wrote."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from natadv.report import markdown
from natadv.report.gate_json import WaiverUseEntry
from natadv.report.markdown import MARKER, MOST_COMMENT, MOST_SUMMARY, comment, summary


def test_failures_come_first_with_their_lines_and_pictures(gate, entry):
    name = "classification__clean__bad__mini-clip@paper.png"
    address = "classification/clean/bad/mini-clip@paper"
    failing = entry("FAIL", case=address, sheet=f".natadv/sheets/{name}")
    text = summary(gate("fail", entry(), failing), pictures_url="https://x.org/y/?a=1&b=")

    assert text.startswith("## natadv FAIL: 2 of 9 cases of tier mini\n")
    assert text.index("**FAIL**") < text.index("| PASS |")
    assert "`thresholds.yaml:12`" in text
    url = "https://x.org/y/?a=1&amp;b=/classification__clean__bad__mini-clip%40paper.png"
    assert f'src="{url}"' in text
    assert "<img" not in summary(gate("fail", failing))
    assert f"`.natadv/sheets/{name}`" in summary(gate("fail", failing))


def test_the_failures_of_a_case_are_counted_by_cause(gate, entry):
    causes = {"said the word": 2, "low margin": 0, "another wrong class": 1300}
    failing = entry("FAIL", name="red", causes=causes)
    line = "- 1,302 samples failed: 1,300 another wrong class, 2 said the word"
    assert line in summary(gate("fail", failing)).splitlines()
    assert "samples failed" not in summary(gate("pass", entry()))


def test_a_comment_begins_with_the_marker_by_which_a_bot_finds_it(gate, entry):
    text = comment(gate("pass", entry()))

    assert text.startswith(MARKER.format(tier="mini") + "\n")
    assert comment(gate("fail", entry("FAIL"), tier="pr")).startswith("<!-- natadv gate: pr -->")


def test_what_is_waived_is_said_with_who_and_until_when(gate, waived):
    text = summary(gate("waived", waived))

    assert "**WAIVED**" in text
    assert "waived by ann until 2026-12-31: fonts of the vendor" in text
    assert "FAIL</" not in text


def test_waivers_that_excuse_nothing_are_named(gate, waived):
    facts = waived.waiver.model_dump()
    uses = [WaiverUseEntry(**facts, state=s) for s in ("applied", "expired", "unused")]
    lines = gate("waived", waived, waivers=uses).useless_waivers

    assert [line.partition(" by ann ")[2].partition(" (")[0] for line in lines] == [
        "expired on 2026-12-31, so it does not apply",
        "matches no failing case",
    ]
    text = summary(gate("waived", waived, waivers=uses))
    assert text.count("- waiver of classification/clean/known/") == 2


@pytest.mark.parametrize(("write", "most"), [(summary, MOST_SUMMARY), (comment, MOST_COMMENT)])
def test_it_is_cut_to_what_github_takes(gate, entry, write, most):
    cases = [entry("FAIL", name=f"d{i}", row={"reason": "ü" * 2000}) for i in range(600)]
    text = write(gate("fail", *cases))

    assert most / 2 < len(text.encode()) <= most
    assert text.startswith(("## natadv FAIL", "<!-- natadv gate: mini -->\n\n## natadv FAIL"))
    assert "did not fit" in text.splitlines()[-1]
    assert text.count("<details") == text.count("</details>")


def test_words_of_others_are_shown_and_not_obeyed(gate, entry):
    reason = "<script>x</script> `a` *b* [c](http://d) | e\n# f ~~g~~ @octocat #12 ![i](j)"
    text = summary(gate("fail", entry("FAIL", row={"reason": reason}), problems=[reason]))
    parser = MarkdownIt("commonmark").enable("table").enable("strikethrough")
    tokens = [t for token in parser.parse(text) for t in (token.children or [token])]

    rendered = "".join(t.content for t in tokens if t.type in ("text", "text_special"))
    plain = rendered.replace(markdown.ZERO_WIDTH, "")
    assert " ".join(reason.split()).replace("<script>x</script>", "") in plain.replace(
        "<script>x</script>", ""
    )
    assert not {t.type for t in tokens} & {"link_open", "image", "em_open", "s_open"}
    assert "<script" not in "".join(t.content for t in tokens if t.type.startswith("html"))
    assert "@octocat" not in text
    assert [t.tag for t in tokens if t.type == "heading_open"] == ["h2"]


def test_every_row_of_a_table_has_as_many_cells_as_its_head(gate, entry):
    odd = entry("FAIL", case="classification/clean/a|b`c/mini-clip", row={"metric": "top1 (a|b)"})
    text = summary(gate("fail", odd))
    parser = MarkdownIt("commonmark").enable("table")

    rows = [t for t in parser.parse(text) if t.type in ("tr_open", "td_open", "th_open")]
    counts, current = [], 0
    for token in [*rows, None]:
        if token is None or token.type == "tr_open":
            counts.append(current)
            current = 0
        else:
            current += 1
    assert set(counts[1:]) == {9}
