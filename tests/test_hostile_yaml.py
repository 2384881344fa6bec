"""YAML that means harm, or nothing: each ends in one line, at once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from study.common.errors import InvalidInputError, MissingDataError, StudyError
from study.search.document import MOST_VALUES, load_space, parse_yaml

HEAD = "name: x\nsearcher: grid\ndatasets: [1]\n"
LAUGHS = "\n".join(
    [f"a0: &a0 [{', '.join('x' * 9)}]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
)
LAUGHING_MAPS = "\n".join(
    ["a0: &a0 {k: v}", *(f"a{n}: &a{n} {{{', '.join(f'k{i}: *a{n - 1}' for i in range(9))}}}" for n in range(1, 12))]
)
HOSTILE: dict[str, str] = {
    "billion laughs": LAUGHS,
    "billion laughs of maps": LAUGHING_MAPS,
    "laughs in a setting": f"{HEAD}{LAUGHS}\ncurriculum: {{scheme: *a11}}",
    "itself": "a: &a [*a]",
    "itself in a map": "a: &a {b: *a}",
    "itself as a setting": f"{HEAD}seeds: &s [0, *s]",
    "30,000 seeds": f"{HEAD}seeds: [{', '.join(map(str, range(30_000)))}]",
    "30,000 equal seeds": f"{HEAD}seeds: [{','.join(['1'] * 30_000)}]",
    "30,000 words": f"{HEAD}curriculum:\n  scheme: [{', '.join(f'w{n}' for n in range(30_000))}]",
    "30,000 floats": f"{HEAD}training:\n  momentum: [{', '.join(f'0.{n}' for n in range(1, 30_000))}]",
    "30,000 lines": HEAD + "seeds:\n" + "- 1\n" * 30_000,
    "30,000 keys": "\n".join(f"k{n}: 1" for n in range(30_000)),
    "30,000 documents": "--- 1\n" * 30_000,
    "a long line": "name: " + "x" * 10_000_000,
    "nested lists": "[" * 100_000,
    "nested maps": "{a: " * 100_000,
    "nested blocks": "- " * 50_000,
    "nested and closed": "a: " + "[" * 500 + "]" * 500,
    "!!int ''": f"{HEAD}seed: !!int ''",
    "!!int in base 60": f"{HEAD}seed: !!int 1:zz",
    "!!int _": f"{HEAD}seed: !!int _",
    "!!float ''": f"{HEAD}seed: !!float ''",
    "!!float of a word": f"{HEAD}seed: !!float x",
    "!!bool ''": f"{HEAD}seed: !!bool ''",
    "!!bool of a word": f"{HEAD}seed: !!bool perhaps",
    "!!null of a word": f"{HEAD}name: !!null x",
    "!!timestamp ''": f"{HEAD}seed: !!timestamp ''",
    "!!timestamp": f"{HEAD}seed: !!timestamp 2001-99-99",
    "!!binary": f"{HEAD}seed: !!binary é",
    "!!omap": f"{HEAD}seed: !!omap [a]",
    "!!pairs": f"{HEAD}seed: !!pairs [a]",
    "!!set": f"{HEAD}seed: !!set {{a, b}}",
    "!!seq of a word": f"{HEAD}seeds: !!seq x",
    "!!map of a word": f"{HEAD}curriculum: !!map x",
    "!!str of a list": f"{HEAD}seed: !!str [1]",
    "!own": f"{HEAD}seed: !own x",
    "!!merge": "a: &a {b: 1}\nc:\n  !!merge x: *a",
    "a merge of itself": "a: &a\n  <<: *a\n  b: 1",
    "a merge of words": f"{HEAD}training:\n  <<: [x]",
    "merges that unfold": "\n".join(
        ["a0: &a0 {k: v}", *(f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    ),
    "!!python of a name": f"{HEAD}seed: !!python/name:os.system",
    "300,000 anchors": "\n".join(f"k{n}: &a{n} 1" for n in range(300_000)),
    "a long tag": f"a: !{'x' * 100_000} 1",
    "10 MB of comments": "# c\n" * 2_500_000,
    "carriage returns": HEAD.replace("\n", "\r") + "seed: x\r",
    "a map as key": "? {a: b}\n: c",
    "an alias as key": "a: &a [1]\n? *a\n: x",
    "on as key": "on: 1",
    "nan as key": ".nan: x\n.NaN: y",
    "a float as seed": f"{HEAD}seed: 1.0",
    "a negative sexagesimal": f"{HEAD}seed: -1:30:30",
    "a long name": f"name: {'x' * 300}\nsearcher: grid\ndatasets: [1]",
    "a name that is a path": "name: ../x\nsearcher: grid\ndatasets: [1]",
    "a name with half a letter": 'name: "a\\uD800"\nsearcher: grid\ndatasets: [1]',
    "a dataset that is a path": "name: x\nsearcher: grid\ndatasets: ['../../x']",
    "a range of no such kind": f"{HEAD}training: {{momentum: {{normal: [0, 1]}}}}",
    "no key": "? \n: b",
    "a huge int": f"{HEAD}seed: {'9' * 4000}",
    "a larger int": f"{HEAD}seed: {'9' * 10_000}",
    "a huge negative int": f"{HEAD}seeds: [-{'9' * 400}]",
    "a huge int as float": f"{HEAD}training: {{momentum: {'9' * 400}}}",
    "a huge int as cores": f"{HEAD}resources: {{cpus: {'9' * 400}}}",
    "2^63": f"{HEAD}seed: {2**63}",
    "1e999": f"{HEAD}training: {{momentum: 1e999}}",
    "-1e999": f"{HEAD}energy: {{pue: -1e999}}",
    ".nan": f"{HEAD}training: {{momentum: .nan}}",
    ".inf": f"{HEAD}energy: {{pue: .inf}}",
    "nan in a range": f"{HEAD}training: {{momentum: {{uniform: [.nan, 1]}}}}",
    "a date": f"{HEAD}seed: 2001-01-01",
    "a date and time": f"{HEAD}training: {{epochs: 2001-12-14t21:59:43.10-05:00}}",
    "an octal": f"{HEAD}seed: 012",
    "a sexagesimal": f"{HEAD}seed: 1:30",
    "an unknown alias": "a: *b",
    "an anchor twice": "a: &a x\nb: &a",
    "a tab": "a:\n\t- b",
    "an escape": "a: \x1b[31m",
    "an unknown directive": "%TAG ! !\n%YAML 9.9\n---\n",
    "nothing": "",
    "a word": "word",
    "a list": "[1, 2]",
    "null": "~",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_one_short_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(HOSTILE[name].encode())
    with pytest.raises(StudyError) as caught:
        load_space(path)
    assert len(str(caught.value)) < 2000
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfea\x00",
        b"a: \xe9",
        HEAD.encode("utf-16"),
        HEAD.encode("utf-32"),
        b"\x1f\x8b\x08",
        b"\xed\xa0\x80",
        bytes(range(128, 256)),
    ],
)
def test_what_is_not_utf8_is_said_to_be(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="legal is UTF-8 text"):
        load_space(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "nothing", "loop"])
def test_what_is_no_file_is_said_to_be(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "space.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "nothing":
        path.symlink_to("/dev/zero" if kind == "device" else path)
    with pytest.raises(MissingDataError, match=r"^no search space at "):
        load_space(path)


def test_aliases_that_mean_little_are_read() -> None:
    assert parse_yaml("a: &x [0, 1]\nb: *x\nc: {d: *x}") == {"a": [0, 1], "b": [0, 1], "c": {"d": [0, 1]}}
    assert len(parse_yaml(f"[{', '.join(['1'] * (MOST_VALUES - 1))}]")) == MOST_VALUES - 1
    with pytest.raises(InvalidInputError, match=f"at most {MOST_VALUES} values"):
        parse_yaml(f"[{', '.join(['1'] * MOST_VALUES)}]")
    assert parse_yaml("!!int '3'") == 3
    assert parse_yaml(str(2**63 - 1)) == 2**63 - 1


def test_long_values_are_shortened_in_messages() -> None:
    error = InvalidInputError(field="x", received=list(range(10_000)), legal="less")
    assert len(str(error)) < 500
    assert json.dumps(str(error)).count("\\n") == 0
