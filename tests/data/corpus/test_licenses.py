from email.parser import HeaderParser

import pytest

from data.corpus.licenses import FolderLicenses, allowed, declared, from_folder, from_metadata

MIT, BSD = "MIT License\n", "BSD 2-Clause\n"  # whole texts are read in test_license_texts.py


def test_a_header_counts_in_the_first_lines_only():
    header = "# SPDX-License-Identifier: (MIT OR Apache-2.0) AND GPL-2.0-only WITH Classpath-exception-2.0\n"
    assert declared(header) == "(MIT OR Apache-2.0) AND GPL-2.0-only WITH Classpath-exception-2.0"
    assert declared("/* SPDX-License-Identifier: MIT */") == "MIT"
    assert declared("\n" * 20 + header) is None


@pytest.mark.parametrize(
    ("license", "met"),
    [
        ("MIT", True),
        ("mit", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("MIT AND Apache-2.0", True),
        ("MIT OR GPL-3.0-only AND Apache-2.0", True),
        ("(MIT OR GPL-3.0-only) AND BSD-3-Clause", False),
        ("(MIT OR GPL-3.0-only) AND Apache-2.0", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("MIT OR", False),
        ("(Apache-2.0 GPL-3.0-only", False),
        ("MIT License of ours", False),
        ("House rules", True),
        (None, False),
    ],
)
def test_an_expression_is_met_by_the_licences_that_are_allowed(license, met):
    assert allowed(license, ["MIT", "Apache-2.0", "House rules"]) is met


def test_a_file_stands_under_what_is_nearest_to_it(tmp_path):
    for folder in ("pkg/inner/deep", "assets/b", "docs/b"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "LICENSE").write_text(MIT)
    (tmp_path / "pkg" / "inner" / "COPYING").write_text(BSD)
    (tmp_path / "pkg" / "own.py.license").write_text("SPDX-License-Identifier: CC0-1.0\n")
    (tmp_path / "REUSE.toml").write_text(
        'version = 1\n[[annotations]]\npath = ["assets/*.js"]\nSPDX-License-Identifier = "ISC"\n'
        '[[annotations]]\npath = "docs/**"\nSPDX-License-Identifier = "CC-BY-4.0"\n'
    )
    (tmp_path / "pkg" / "license.py").write_text("'A module about licences.'")
    licenses = FolderLicenses(tmp_path, from_folder(tmp_path))
    found = {
        path: licenses.of(tmp_path / path)
        for path in ("pkg/a.py", "pkg/inner/deep/a.py", "pkg/own.py", "assets/a.js", "assets/b/a.js", "docs/b/a.py")
    }
    assert found == {
        "pkg/a.py": "MIT",
        "pkg/inner/deep/a.py": "BSD-2-Clause",
        "pkg/own.py": "CC0-1.0",
        "assets/a.js": "ISC",
        "assets/b/a.js": "MIT",
        "docs/b/a.py": "CC-BY-4.0",
    }


def test_a_project_says_its_licence_before_its_licence_file_does(tmp_path):
    (tmp_path / "LICENSE").write_text(MIT)
    (tmp_path / "package.json").write_text('{"license": "MIT OR Apache-2.0"}')
    assert from_folder(tmp_path) == "MIT OR Apache-2.0"
    (tmp_path / "package.json").write_text('{"license": {"type": "ISC"}}')
    assert from_folder(tmp_path) == "ISC"
    (tmp_path / "package.json").write_text("[1]")
    assert from_folder(tmp_path) == "MIT"


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ("License-Expression: MIT AND ISC\nLicense: x", "MIT AND ISC"),
        ("Classifier: License :: OSI Approved\nClassifier: License :: OSI Approved :: MIT License", "MIT"),
        ("License: Apache 2.0", "Apache-2.0"),
        ("License: Apache License, Version 2.0", "Apache-2.0"),
        ("License: " + "x" * 100, None),
    ],
)
def test_metadata_give_an_spdx_name_where_they_can(headers, name):
    assert from_metadata(HeaderParser().parsestr(headers + "\n")) == name
