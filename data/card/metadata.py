"""The machine-readable parts of a card: the YAML front matter of a dataset hub, and Croissant JSON-LD.

Front matter   https://huggingface.co/docs/hub/datasets-cards; decides how a hub lists and loads the data
Croissant      http://mlcommons.org/croissant/1.0 (arXiv:2403.19546): files with their hashes, fields of their rows
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

from data.card.material import DataFile, Material, relative

# Licences by the hub's names; SPDX uses capitals and distinguishes -only from -or-later.
HUB_LICENSES = {
    "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "isc", "zlib", "unlicense",
    "mpl-2.0", "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2",
    "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "artistic-2.0", "bsl-1.0", "wtfpl", "postgresql", "ncsa",
    "ms-pl", "ofl-1.1", "odbl", "pddl", "afl-3.0", "osl-3.0", "ecl-2.0", "lppl-1.3c",
}  # fmt: skip
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
PLAIN = re.compile(r"[A-Za-z][\w<./+-]*")
CONTEXT = {  # the specification's own context, verbatim, so that readers recognise it
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
HUB_TASKS = {"classification": "text-classification", "qa": "question-answering", "summarization": "summarization"}
TYPES = {bool: "sc:Boolean", int: "sc:Integer", float: "sc:Float", str: "sc:Text"}


def licenses(material: Material) -> list[str]:
    """The declared licences of the sources, most frequent first."""
    declared = Counter(source.get("license") for source in material.sources())
    return [name for name, _ in declared.most_common() if name]


def front_matter(material: Material) -> str:
    """The YAML block at the start of a dataset card."""
    known = [re.sub(r"-(only|or-later)$", "", name.lower()) for name in licenses(material)]
    hub = list(dict.fromkeys(name if name in HUB_LICENSES else "other" for name in known)) or ["unknown"]
    has_code = bool(material.corpus or material.instruct or material.pairs)
    tasks = ["text-generation"] * bool(material.instruct or not (material.pairs or material.text))
    tasks += ["text-retrieval"] * bool(material.pairs) + ([HUB_TASKS[material.text.task]] if material.text else [])
    lines = ["---", f"pretty_name: {json.dumps(material.name)}", *_list("license", hub)]
    lines += _list("language", ["en", "code"] if has_code else ["en"]) + _list("task_categories", tasks)
    tags = [*(["code"] if has_code else []), "croissant", "tritune"]
    lines += _list("size_categories", [_size(material)]) + _list("tags", tags)
    configs = list(dict.fromkeys(file.config for file in material.files))
    lines += ["configs:"] * bool(configs)
    for config in configs:
        lines += [f"- config_name: {config}", "  data_files:"]
        for file in material.files:
            if file.config == config:
                lines += [f"  - split: {file.split}", f"    path: {_scalar(relative(file.path, material.folder))}"]
    return "\n".join([*lines, "---", ""])


def _list(key: str, values: list[str]) -> list[str]:
    return [f"{key}:", *(f"- {_scalar(value)}" for value in values)]


def _scalar(text: str) -> str:
    """A YAML scalar: quoted as in JSON unless it is a plain word."""
    return text if PLAIN.fullmatch(text) else json.dumps(text)


def _size(material: Material) -> str:
    rows = sum(len(file.rows) for file in material.files) or len(material.sources())
    return next((name for most, name in SIZES if rows < most), "1M<n<10M")


def croissant(material: Material, description: str) -> dict:
    """The JSON-LD of the data in a folder.

    description  one or more sentences that say what it is
    The specification also requires a creator, a date and a URL. They are filled in as far as known: the project of the
    code, the time of the newest file, and the page of the package or repository.
    """
    folder = material.folder
    about = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": re.sub(r"[^\w.-]+", "-", material.name),
        "description": description,
        "license": [_license_url(name) for name in licenses(material)] or ["NOASSERTION"],  # SPDX's word for it
        "url": _address(material),
        "creator": {"@type": "sc:Organization", "name": f"the authors of {material.name}"},
        "datePublished": _date([file.path for file in material.files] + _corpus_files(material)),
        "version": "1.0.0",
        "keywords": ["code", "tritune"],
        "inLanguage": "en",
        "isLiveDataset": False,
    }
    files = [(file.path, "application/jsonlines", f"{file.config}, {file.split}") for file in material.files]
    files += [
        (path, "application/jsonlines" if path.suffix == ".jsonl" else "application/json", "the corpus")
        for path in _corpus_files(material)
    ]
    about["distribution"] = [_file_object(path, format, what, folder) for path, format, what in files]
    if material.corpus_folder:
        about["distribution"].append(
            {
                "@type": "cr:FileSet",
                "@id": "corpus-files",
                "name": "corpus-files",
                "description": "The source files that were kept; the manifest has the hash of each.",
                "containedIn": {"@id": relative(material.corpus_folder / "manifest.jsonl", folder)},
                "encodingFormat": "text/plain",
                "includes": relative(material.corpus_folder / "files", folder) + "/**",
            }
        )
    about["recordSet"] = [_record_set(file, folder) for file in material.files]
    return about


def _corpus_files(material: Material) -> list[Path]:
    place = material.corpus_folder
    return [place / "corpus.json", place / "manifest.jsonl"] if place else []


def _file_object(path: Path, format: str, what: str, folder: Path) -> dict:
    data = path.read_bytes()
    return {
        "@type": "cr:FileObject",
        "@id": relative(path, folder),
        "name": path.name,
        "description": what,
        "contentUrl": relative(path, folder),
        "contentSize": f"{len(data)} B",
        "encodingFormat": format,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _record_set(file: DataFile, folder: Path) -> dict:
    name = f"{file.config}-{file.split}"
    source = {"fileObject": {"@id": relative(file.path, folder)}}
    fields = [
        _field(f"{name}/{key}", values, {**source, "extract": {"column": key}})
        for key, values in _columns(file.rows).items()
    ]
    record_set = {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"{len(file.rows):,} rows.",
        "field": [one for one in fields if one],
    }
    ids = [row.get("id") for row in file.rows]
    unique = all(ids) and len(set(map(str, ids))) == len(ids)
    return {**record_set, "key": {"@id": f"{name}/id"}} if unique else record_set


def _columns(rows: list[dict]) -> dict[str, list]:
    """The values of each key, in order of first occurrence."""
    columns: dict[str, list] = {}
    for row in rows:
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    return columns


def _field(name: str, values: list, source: dict, *, nested: bool = False) -> dict | None:
    """The field of a column; None if its values have no common type that Croissant defines.

    An object becomes sub-fields, one level deep; deeper nesting is not described.
    """
    values = [value for value in values if value is not None]
    repeated = bool(values) and all(isinstance(value, list) for value in values)
    flat = [one for value in values for one in value] if repeated else values
    field = {"@type": "cr:Field", "@id": name, "name": name.rpartition("/")[2]}
    types = {type(value) for value in flat}
    if types == {dict} and not nested and not repeated:
        parts = [
            _field(f"{name}/{key}", inner, {**source, "transform": {"jsonPath": key}}, nested=True)
            for key, inner in _columns(flat).items()
        ]
        return {**field, "subField": [part for part in parts if part]}
    if types == {int, float}:
        types = {float}
    if types and (len(types) > 1 or not types <= TYPES.keys()):
        return None
    data_type = TYPES[types.pop()] if types else "sc:Text"
    return {**field, "dataType": data_type, **({"repeated": True} if repeated else {}), "source": source}


def _license_url(name: str) -> str:
    """The page of a licence on SPDX's list; expressions, LicenseRef- and other texts are returned unchanged."""
    listed = re.fullmatch(r"(?!LicenseRef-)[\w.+-]+", name)
    return f"https://spdx.org/licenses/{name}.html" if listed else name


def _address(material: Material) -> str:
    """The source's location: a package URL (purl) if its revision names a package."""
    for commit in (source.get("commit") or "" for source in material.sources()):
        if package := re.fullmatch(r"(.+)==(.+)", commit):
            return f"pkg:pypi/{package[1].lower()}@{package[2]}"
        if package := re.fullmatch(r"(.+)@(.+)", commit):
            return f"pkg:npm/{package[1].replace('@', '%40')}@{package[2]}"
    source = str(material.corpus.source) if material.corpus else ""
    return source if source.startswith(("https://", "http://")) else "file:."


def _date(paths: list[Path]) -> str:
    newest = max(path.stat().st_mtime for path in paths)
    return datetime.fromtimestamp(newest, timezone.utc).date().isoformat()
