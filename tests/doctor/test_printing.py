"""What is shown: a table that fits the terminal, JSON that says the same, and no names of users if so asked."""

from __future__ import annotations

import json

from sklearn_wsl_gpu.doctor import printing
from sklearn_wsl_gpu.doctor.checks import Row

_ROW = Row("driver", "wsl", "fatal", "failed", "Driver 472.12 is too old for cuML.", "Install a newer one.", 0.25)


def test_lines_fit_the_terminal_and_show_evidence_and_remedy() -> None:
    text = printing.as_lines(_ROW._replace(evidence="word " * 60), 100)

    assert max(len(line) for line in text.splitlines()) <= 100
    assert text.startswith("FAILED   driver")
    assert "> Install a newer one." in text
    assert text.count("word") == 60


def test_json_has_every_field_and_the_number_of_failures() -> None:
    content = json.loads(printing.as_json([_ROW], {"numpy": "2.1"}))

    assert content == {"versions": {"numpy": "2.1"}, "failed": 1, "checks": [_ROW._asdict()]}


def test_the_summary_counts_and_names_what_was_skipped() -> None:
    rows = [_ROW, _ROW._replace(name="gpu", result="skipped"), _ROW._replace(name="keys", result="ok")]

    assert printing.summary(rows) == (
        "Skipped, for what they depend on: gpu.\n3 checks in 0.8 s: 1 ok, 1 failed, 1 skipped."
    )


def test_names_of_users_are_left_out_wherever_they_stand() -> None:
    for text in (
        "/home/ada/venv/bin/python", r"C:\Users\Ada Lovelace\keys", "/mnt/c/Users/ada/pool", "Ada owns it",
        "kept by ada, since",
    ):  # fmt: skip
        assert "ada" not in printing.mask(text, ["Ada Lovelace", "ada"]).lower()


def test_homes_of_others_are_masked_and_other_words_stay() -> None:
    assert printing.mask("/home/grace/venv of canada", ["ada"]) == "/home/<user>/venv of canada"
    assert printing.mask("/usr/lib of root", ["root", ""]) == "/usr/lib of root"


def test_evidence_and_remedy_are_masked_both() -> None:
    row = printing.masked(_ROW._replace(evidence="/home/ada/x", remedy="rm /home/ada/x"), ["ada"])

    assert (row.evidence, row.remedy) == ("/home/<user>/x", "rm /home/<user>/x")


def test_what_a_program_printed_does_not_steer_the_terminal() -> None:
    text = printing.as_lines(_ROW._replace(evidence="\x1b[2Jall is\x07 well", remedy="\x1b]0;title\x07"), 100)

    assert text.replace("\n", "").isprintable()
