"""What each label is, for the bundle: scientific name, rank, the taxa above it. Owns ``labels.toml`` in a run.

Training fills it as far as the data set and a small table know; the user completes it; export reads it back strictly.
Never guesses: a name that means several species gets the lowest taxon that holds all of them.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from edge.errors import ConfigError, DataError, nearest
from edge.model.bundle import Label
from edge.model.decide import EMPTY, PERSON
from edge.model.taxonomy import ANIMAL, RANKS, lineage
from trainer import run
from trainer.dataset import camtrap_dp, coco, outside
from trainer.dataset.outside import Record

FILE = "labels.toml"
MAX_BYTES = 4 * 2**20
MAX_DATA_BYTES = 64 * 2**20
"""A label file larger than this is not searched for what labels are; only rarely does one say it."""
SPECIES = ("species", "subspecies")
ALL_RANKS = (*reversed(SPECIES), *RANKS, "phylum", "kingdom")
KEYS = ("animal", "english", "scientific_name", "rank", "taxon_id", *RANKS)
NO_ANIMALS = frozenset(
    {EMPTY, "blank", "nothing", "background", PERSON, "human", "people", "homo sapiens", "setup", "calibration"}
    | {"vehicle", "car", "truck", "bicycle", "motorcycle"}
)
"""Labels of which nothing more is to be said."""
_ANY_ANIMAL = frozenset({ANIMAL, "animals", "wildlife"})
_FIELDS = {"genus": "genus", "family": "family", "order": "order", "class": "taxon_class"}
_LONGEST = {"rank": 40}
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_HEADER = f"""\
# What each label is. Complete or correct it before you export this run; the names in brackets stay as they are.
#
#   animal           true or false. Only animals are rolled up, and only `{EMPTY}`, people and things are none
#   scientific_name  of the species, or of the lowest taxon that holds all that the label means: Cervidae for deer
#   rank             of that name: {", ".join(ALL_RANKS[1:6])}
#   genus to class   the taxa above it. An answer that is not sure enough is rolled up to one of these, or to animal
#   taxon_id         of the checklist that you use
"""


@dataclass(frozen=True)
class _Known:
    """A taxon of the table: its ``Label`` without a name, and the English name to show for it."""

    taxon: Label
    english: str | None


# --- filled by training


def known(names: Sequence[str], given: Mapping[str, Label] | None = None) -> tuple[Label, ...]:
    """What is known of a model's labels.

    Args:
        names: C of them, in the order of the logits.
        given: what the data set says of some of them, by :func:`of_data`; it goes before the table.
    """
    found = [_known(name, (given or {}).get(name)) for name in names]
    first = [i for i, name in enumerate(names) if name in (given or {})]
    above: dict[tuple[str, str], dict[str, str]] = {}
    for i in [*first, *(i for i in range(len(names)) if i not in first)]:
        found[i] = _agreeing(found[i], above)
    return tuple(found)


def of_data(data: Path) -> dict[str, Label]:
    """What a data set says of its labels: a Camtrap DP package in ``taxonomic``, a COCO file in its categories.

    Whatever cannot be read says nothing: the photos' reader has told the user already.
    """
    try:
        file = _label_file(data)
        found = outside.json_object(file) if file else None
        if found is None or file is None:
            return {}
        if camtrap_dp.is_one(file):
            return dict(_of_package(found))
        return dict(_of_categories(found)) if coco.is_one(found) else {}
    except (DataError, OSError):
        return {}


def incomplete(labels: Iterable[Label]) -> tuple[str, ...]:
    """Labels that a user may say more of: animals without any taxon, and what nobody knows to be one or not."""
    return tuple(
        label.name
        for label in labels
        if (len(lineage(label)) == 1 if label.animal else _plain(label.name) not in NO_ANIMALS)
    )


def text(labels: Sequence[Label]) -> str:
    """``labels.toml``; what is not known stands there as a comment, to be completed."""
    lines = [_HEADER]
    for label in labels:
        lines.append(f"[{label.name if _BARE.fullmatch(label.name) else _toml(label.name)}]")
        for key in KEYS:
            value = getattr(label, _FIELDS.get(key, key))
            lines.append(f"# {key} =" if value is None else f"{key} = {_toml(value)}")
        lines.append("")
    return "\n".join(lines)


# --- completed by the user, read by export


def read(path: Path, names: Sequence[str]) -> tuple[Label, ...]:
    """Read ``labels.toml`` back.

    What follows from the rest is filled: the genus of ``Vulpes vulpes``, and what the table knows above it.

    Args:
        path: the file.
        names: C names, which the file must have, each once, in any order.

    Raises:
        ConfigError: the file cannot be read or is no TOML; a label is missing or unknown; a key is unknown, or its
            value of the wrong kind; or the taxa contradict each other.
    """
    tables = _tables(path)
    for name in tables:
        if name not in names:
            raise ConfigError(
                f"{path}: [{name}] is no label of this model. The nearest is {nearest(name, names)!r}.",
                code="unknown label",
            )
    lacking = [name for name in names if name not in tables]
    if lacking:
        raise ConfigError(f"{path} has no table for the label {lacking[0]!r}. Add it.", code="missing label")
    labels = tuple(_label(f"{path}: [{name}]", name, tables[name]) for name in names)
    _check(path, labels)
    return labels


def of_run(trained: run.Run) -> tuple[Label, ...]:
    """A run's labels as its user left ``labels.toml``.

    Raises:
        ConfigError: as :func:`read`.
    """
    if trained.labels_path.is_file():
        return read(trained.labels_path, trained.facts.labels)
    return known(trained.facts.labels)


def _tables(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Train again, or write it.") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES} bytes; that is no table of labels.")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML in UTF-8: {error}.") from error


def _label(where: str, name: str, table: Any) -> Label:
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is {table!r:.80}, expected a table.")
    for key in table:
        if key not in KEYS:
            raise ConfigError(
                f"{where} {key} is no key. The nearest is {nearest(key, KEYS)}; there are {', '.join(KEYS)}.",
                code="unknown key",
            )
    if not isinstance(table.get("animal"), bool):
        raise ConfigError(f"{where} animal is {table.get('animal')!r:.80}, expected true or false.")
    values = {_FIELDS.get(key, key): _text(f"{where} {key}", key, table.get(key)) for key in KEYS[1:]}
    label = Label(name, animal=table["animal"], **values)
    if label.rank is not None and label.rank not in ALL_RANKS:
        raise ConfigError(f"{where} rank is {label.rank!r}, expected {', '.join(ALL_RANKS)}.")
    if label.rank is not None and label.scientific_name is None:
        raise ConfigError(f"{where} has a rank and no scientific_name. Add it.")
    label = _completed(label)
    if label.scientific_name is not None and label.rank is None:
        raise ConfigError(f"{where} has the scientific_name {label.scientific_name!r} and no rank. Add it.")
    if label.animal and _plain(name) in (EMPTY, PERSON):
        raise ConfigError(f"{where} is never an animal. Write animal = false.")
    if not label.animal and any(getattr(label, field) for field in _FIELDS.values()) and name != PERSON:
        raise ConfigError(f"{where} has taxa above it, but animal is false. Correct one of them.")
    return label


def _text(where: str, key: str, value: Any) -> str | None:
    if value is None:
        return None
    most = _LONGEST.get(key, 200)
    if not isinstance(value, str) or not value.isprintable() or value != value.strip() or not 1 <= len(value) <= most:
        raise ConfigError(f"{where} is {value!r:.80}, expected a text in quotes of 1 to {most} characters.")
    return value


def _check(path: Path, labels: Sequence[Label]) -> None:
    """A taxon lies under one other taxon of each rank, and a species under its genus."""
    above: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    for label in labels:
        if label.rank in SPECIES and label.genus and str(label.scientific_name).split()[0] != label.genus:
            raise ConfigError(f"{path}: [{label.name}] is {label.scientific_name}, but its genus {label.genus}.")
        chain = lineage(label)[:-1]
        for i, taxon in enumerate(chain):
            for rank, name in chain[i + 1 :]:
                said, by = above.setdefault(taxon, {}).setdefault(rank, (name, label.name))
                if said != name:
                    raise ConfigError(
                        f"{path}: the {taxon[0]} {taxon[1]} is of the {rank} {said} in [{by}] and of {name} in "
                        f"[{label.name}]. Correct one of them.",
                        code="contradiction",
                    )


# --- what is known


def _known(name: str, given: Label | None) -> Label:
    plain = _plain(name)
    if plain in NO_ANIMALS:
        if name == PERSON:
            return Label(name, "Homo sapiens", "species", given.taxon_id if given else None, "human")
        return Label(name, english=plain)
    if given is not None:
        return _completed(replace(given, name=name, animal=True))
    found = next((_table()[each] for each in (plain, *_singular(plain)) if each in _table()), None)
    if found is None:
        return Label(name, english=name.replace("_", " ").strip() or None, animal=plain in _ANY_ANIMAL)
    return replace(found.taxon, name=name, english=found.english, animal=True)


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _singular(plain: str) -> tuple[str, ...]:
    return (plain.removesuffix("s"), plain.removesuffix("es")) if plain.endswith("s") else ()


@cache
def _table() -> dict[str, _Known]:
    """Every name of the table, English or scientific, in lower case."""
    content = tomllib.loads(resources.files("trainer").joinpath("data/taxa.toml").read_text(encoding="utf-8"))
    found: dict[str, _Known] = {}
    for taxon, english in _walk(content, ()):
        is_species = taxon.rank == "species"
        names = {name: name for name in english} | {
            str(taxon.scientific_name).casefold(): english[0] if is_species else None
        }
        for name, shown in names.items():
            if name in found:
                raise ValueError(f"taxa.toml has the name {name!r} twice.")
            found[name] = _Known(taxon, shown)
    return found


def _walk(table: Mapping[str, Any], above: tuple[str, ...]) -> Iterable[tuple[Label, list[str]]]:
    """The taxa of a table that stands in class, order and family, as far as there are."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _walk(value, (*above, name))
            continue
        named_so = tuple(reversed(RANKS))[len(above) - 1]
        own = "species" if " " in name else named_so if name == above[-1] else "genus"
        taxon_class, order, family = (*above, None, None)[:3]
        genus = name.split()[0] if own in ("species", "genus") else None
        yield Label("", name, own, genus=genus, family=family, order=order, taxon_class=taxon_class), value


@cache
def _above() -> dict[tuple[str, str], dict[str, str]]:
    """What the table knows above each taxon: (rank, name) -> rank -> name."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for each in _table().values():
        chain = lineage(each.taxon)[:-1]
        for i, taxon in enumerate(chain):
            found.setdefault(taxon, {}).update(chain[i + 1 :])
    return found


def _completed(label: Label) -> Label:
    """The same with what follows from it: its rank, its own place among the taxa, and what the table knows above."""
    name, table = label.scientific_name, _table()
    if name and label.rank is None:
        same = next((rank for rank, taxon in lineage(label)[:-1] if taxon == name), None)
        listed = table[name.casefold()].taxon.rank if name.casefold() in table else None
        label = replace(label, rank=same or listed or ("species" if len(name.split()) == 2 else None))
    if not label.animal:
        return label
    if name and label.rank in SPECIES and label.genus is None:
        label = replace(label, genus=name.split()[0])
    if name and label.rank in RANKS and getattr(label, _FIELDS[label.rank]) is None:
        label = _filled(label, {label.rank: name})
    for taxon in lineage(label)[:-1]:
        label = _filled(label, _above().get(taxon, {}))
    return label


def _filled(label: Label, above: Mapping[str, str]) -> Label:
    gaps: dict[str, Any] = {
        _FIELDS[rank]: name for rank, name in above.items() if getattr(label, _FIELDS[rank]) is None
    }
    return replace(label, **gaps)


def _agreeing(label: Label, above: dict[tuple[str, str], dict[str, str]]) -> Label:
    """The label with the taxa above it that the labels before it have; what is new of it is noted in ``above``."""
    if not label.animal:
        return label
    for rank in RANKS:
        name = getattr(label, _FIELDS[rank])
        agreed: dict[str, Any] = {_FIELDS[over]: taxon for over, taxon in above.get((rank, name), {}).items()}
        label = replace(label, **agreed)
    chain = lineage(label)[:-1]
    for i, taxon in enumerate(chain):
        above.setdefault(taxon, {}).update(chain[i + 1 :])
    return label


# --- what data sets say


def _label_file(data: Path) -> Path | None:
    if data.is_dir():
        package = data / camtrap_dp.PACKAGE
        files = [package] if package.is_file() else sorted(data.glob("*.json"))
        files = [file for file in files if file.stat().st_size <= MAX_DATA_BYTES]
        return next((file for file in files if file == package or coco.is_one(outside.json_object(file))), None)
    is_json = data.suffix.lower() == ".json" and data.stat().st_size <= MAX_DATA_BYTES
    return data if is_json else None


def _of_package(found: Record) -> Iterable[tuple[str, Label]]:
    for record in found.records("taxonomic"):
        name = _said(record, "scientificName")
        if name:
            common = record.raw("vernacularNames")
            english = next((common[key] for key in ("eng", "en") if common.get(key)), None) if _is_map(common) else None
            yield name, _of_record(record, name, "taxonRank", "taxonID", english)


def _of_categories(found: Record) -> Iterable[tuple[str, Label]]:
    """Few COCO files say what their categories are; those of iNaturalist do."""
    for record in found.records("categories"):
        name, scientific = _said(record, "name"), _said(record, "scientific_name")
        says = any(_said(record, key) for key in ("genus", "family", "order", "class"))
        if name and (scientific or says):
            is_scientific = scientific or (name if _said(record, "genus") == name.split()[0] else None)
            yield name, _of_record(record, is_scientific, "rank", "taxon_id", record.raw("common_name"))


def _of_record(record: Record, scientific: str | None, rank: str, taxon_id: str, english: Any) -> Label:
    found = Label(
        name="",
        scientific_name=scientific,
        rank=(_said(record, rank) or "").casefold() or None,
        taxon_id=_said(record, taxon_id),
        english=english if _is_text(english) else None,
        genus=_said(record, "genus"),
        family=_said(record, "family"),
        order=_said(record, "order"),
        taxon_class=_said(record, "class"),
        animal=True,
    )
    return found if found.rank in ALL_RANKS and scientific else replace(found, rank=None)


def _said(record: Record, key: str) -> str | None:
    value = record.raw(key)
    return value if _is_text(value) else str(value) if isinstance(value, int) and key == "taxon_id" else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and value == value.strip() and 1 <= len(value) <= 200


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _toml(value: bool | str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
