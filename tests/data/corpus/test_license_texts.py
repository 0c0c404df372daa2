import importlib
import importlib.metadata

import pytest

from common.console import UserError
from data.corpus import license_texts
from data.corpus.license_texts import identify, identify_file
from data.corpus.licenses import allowed, from_folder
from data.corpus.locate import locate

MIT = """MIT License

Copyright (c) 2020 Ada & Co. <ada@uni.museum>. All rights reserved.

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
BSD3 = """Copyright 2019, The Ada Institute for Artificial Intelligence

Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this list of conditions and the following
disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the following
disclaimer in the documentation and/or other materials provided with the distribution.

3. Neither the name of the copyright holder nor the names of its contributors may be used to endorse or promote products
derived from this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES,
INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL,
SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY,
WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF
THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""
BSD2 = BSD3[: BSD3.index("3. ")] + BSD3[BSD3.index("THIS SOFTWARE") :]
ISC = """Copyright (c) 2020, Ada

Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted,
provided that the above copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT,
INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN
ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF
THIS SOFTWARE.
"""
APACHE = next(file for file in importlib.metadata.files("safetensors") if file.name == "LICENSE").read_text("utf-8")
APACHE_HEADER = """Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except in
compliance with the License. You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software distributed under the License is distributed on an
"AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for the specific
language governing permissions and limitations under the License.
"""
PERMISSIVE = (
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "0BSD",
    "Zlib",
    "Unlicense",
    "PSF-2.0",
)
GRANT = MIT.split("\n\n", 2)[2]


def reflowed(text):
    return " ".join(text.split())


def commented(text):
    return "".join(f" * {line}\n" for line in text.split("\n"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (MIT, "MIT"), (BSD3, "BSD-3-Clause"), (BSD2, "BSD-2-Clause"), (ISC, "ISC"), (APACHE, "Apache-2.0"),
        (APACHE_HEADER, "Apache-2.0"), (GRANT, "MIT"), (reflowed(MIT), "MIT"), (commented(BSD3), "BSD-3-Clause"),
        (MIT.upper(), "MIT"), (MIT.replace('"', "“").replace("\n", "\r\n"), "MIT"),
        (MIT.replace("The above", "1. The above"), "MIT"), ("# The MIT License (MIT)\n\n" + MIT, "MIT"),
        ("X is distributed with the 3-clause BSD license.\n\n" + BSD3, "BSD-3-Clause"),
        ("This is not an officially supported Ada product.\n" + APACHE, "Apache-2.0"),
        (MIT.replace("(c)", "©").replace("Ada", "Adélaïde") + "Contributors: Jané, Sean\nhttps://uni.museum\n", "MIT"),
        (MIT + "\n----\nThird-party notices\n\nfast-sort, in lib/sort:\n" + BSD2, "MIT AND BSD-2-Clause"),
        ("Licensed under either of the following licenses, at your option.\n" + MIT + APACHE, "MIT OR Apache-2.0"),
        ("MIT", "MIT"), ("House rules\n", "House rules"), ("", None), (" \n\n", None),
        ("House rules\nBe kind.\n", "LicenseRef-House-rules"), ("§ 1\n§ 2\n", "LicenseRef-1"),
    ],
)  # fmt: skip
def test_a_licence_is_known_by_its_whole_text_however_it_is_set(text, name):
    assert identify(text) == name


NARROWED = {
    "after": MIT + "\nThe Software may not be used to train machine learning models.\n",
    "before": "The following applies to non-production use only.\n\n" + MIT,
    "between copyright and grant": MIT.replace("reserved.", "reserved.\nNon-commercial use only."),
    "that, on one line": reflowed(MIT.replace("reserved.", "reserved. For evaluation only, not for production.")),
    "after a second notice": MIT.replace("reserved.", "reserved.\n(c) 2021 Bob\nCopyright by Eve\nFor members only."),
    "within a gap": MIT.replace("of this software and", "of this software for non-commercial use and"),
    "within another": BSD3.replace("binary forms, with", "binary forms, for academic purposes, with"),
    "a condition more": MIT.replace(
        "\nTHE SOFTWARE IS", "\nThe Software shall be used for Good, not Evil.\n\nTHE SOFTWARE IS"
    ),
    "Commons Clause": '"Commons Clause" License Condition v1.0\n\nThe Software is provided to you by the Licensor '
    "under the License, as defined below, subject to the following condition. Without limiting other conditions in the "
    "License, the grant of rights under the License will not include, and the License does not grant to you, the "
    "right to Sell the Software.\n\nSoftware: X\nLicense: Apache 2.0\nLicensor: Ada\n\n" + APACHE,
    "delayed": "Business Source License 1.1\n\nLicensor: Ada\nLicensed Work: X\nAdditional Use Grant: None\n"
    "Change Date: 2030-01-01\nChange License: Apache License, Version 2.0\n\nThe Licensor hereby grants you the right "
    "to make non-production use of the Licensed Work.\n",
    "delayed, text included": "Functional Source License, Version 1.1\n\nYou may use the Software for any Permitted "
    "Purpose, which is any purpose other than a Competing Use.\n\nOn the second anniversary it becomes available "
    "under this license:\n\n" + MIT,
    "source-available": "X Community License\n\nYou may not provide the software to third parties as a hosted or "
    "managed service.\n\nPortions of this software are licensed as follows:\n" + MIT,
    "proprietary with a part": "Copyright 2024 Ada Corp. All rights reserved. Proprietary and confidential.\n\nThis "
    "product includes third-party software:\n\n" + MIT,
    "proprietary with a header": "PROPRIETARY. Unauthorized copying of this file is strictly prohibited.\n\n"
    "Parts were published before:\n" + APACHE_HEADER,
    "attribution": MIT + "\nProducts that use the Software must display the sentence Powered by X.\n",
    "a paid edition": MIT + "\nFiles in enterprise/ need a subscription and stand under enterprise/LICENSE.\n",
    "labour": MIT + "\nThe licensee must conform with the labour laws of its jurisdiction.\n",
    "use restrictions": APACHE + "\nAttachment A. You agree not to use the Model for any of these purposes.\n",
    "by size": MIT + "\nUse in a company of more than 100 employees is a breach of this licence.\n",
    "for research": MIT + "\nThe weights are made available for research purposes.\n",
    "in Chinese": MIT + "\n本项目仅供学习交流，禁止商用。\n",
    "in German": MIT + "\nDie Nutzung in Unternehmen ist untersagt.\n",
    "a quotation": 'Our terms\n\nThis is not the MIT License. "Permission is hereby granted, free of charge, to any '
    "person obtaining a copy\" is what it says; ours says that a copy shall be included in no product.\n",
    "a grant cut short": GRANT.split("\n\n")[0] + "\n\nAsk us for everything else.\n",
    "mentioned": "See the licence\n\nSome files are under MIT or Apache-2.0, others are not. Ask.\n",
}  # fmt: skip


@pytest.mark.parametrize("text", NARROWED.values(), ids=NARROWED)
def test_what_narrows_a_licence_is_met_by_no_list_of_permissive_ones(text):
    assert not allowed(identify(text), PERMISSIVE), identify(text)


def test_a_narrowed_licence_keeps_its_name_and_can_be_allowed_by_it():
    assert identify(NARROWED["after"]) == "MIT AND LicenseRef-other-terms"
    assert (
        identify("At your option:\n" + MIT + APACHE + "You must pay.")
        == "(MIT OR Apache-2.0) AND LicenseRef-other-terms"
    )
    assert allowed(identify(NARROWED["after"]), ["MIT", "LicenseRef-other-terms"])
    assert identify(NARROWED["delayed"]) == "LicenseRef-Business-Source-License-1.1"


@pytest.mark.parametrize(
    ("data", "license"),
    [
        (MIT.encode("utf-16"), "MIT"),
        (b"\xef\xbb\xbf" + MIT.encode(), "MIT"),
        (MIT.replace("Ada", "Adélaïde").encode("latin-1"), "MIT"),
        (b"\x1f\x8b\x08\x00\x00" + bytes(range(256)), None),
        (b"\xff\xfe\x00", None),
        (b"", None),
        (MIT.encode() + " — é".encode() * 1000, "MIT AND LicenseRef-other-terms"),
    ],
    ids=["utf-16", "mark", "latin-1", "binary", "broken", "empty", "huge"],
)
def test_a_licence_file_of_any_form_is_read_or_passed_over(tmp_path, monkeypatch, data, license):
    monkeypatch.setattr(license_texts, "MOST_BYTES", 4000)
    (tmp_path / "LICENSE").write_bytes(data)
    assert from_folder(tmp_path) == license
    (tmp_path / "LICENSE.txt").write_text(ISC)
    assert from_folder(tmp_path) == (license or "ISC")


def test_a_folder_in_the_place_of_a_licence_file_is_passed_over(tmp_path):
    (tmp_path / "LICENSE").mkdir()
    (tmp_path / "COPYING").symlink_to(tmp_path / "gone")
    assert from_folder(tmp_path) is None and identify_file(tmp_path / "LICENSE") is None


def test_the_extra_package_is_asked_for_by_name(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match="pip install licenseclassifier"):
        identify(MIT)


def test_finding_a_source_reads_no_licence_file(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "LICENSE").write_text(MIT)
    assert locate(str(tmp_path)).license == "MIT"
    monkeypatch.setattr("data.corpus.licenses.identify_file", None)
    assert locate(str(tmp_path)).root == tmp_path
