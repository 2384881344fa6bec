"""What a study's results rest on besides their specifications: our code, the libraries, the bytes of the prepared data.

A study keeps its provenance. Going on under another one would put numbers side by side that are not comparable, so a
change is named and refused; there is no option to accept it, a new study folder is the honest place for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from study.datasets import DataPaths, PreparedDataset, find_dataset
from study.errors import LedgerError, MissingDataError
from study.ledger import Ledger
from study.plain import sha256_of_json
from study.ranking.files import load_ranking
from study.spaces import OPTUNA, SearchSpace
from study.versions import deciding_versions, version_changes

_KEY = "provenance"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What results rest on.

    Attributes:
        versions: of code and libraries that decide a result, and for an Optuna study of what decides the proposals.
        data: dataset/plans/configuration -> SHA-256 of plans, split, and names and sizes of the preprocessed files.
        rankings: dataset/fold -> SHA-256 of the ranking of its training cases, if the study orders cases by it.
    """

    versions: Mapping[str, str]
    data: Mapping[str, str]
    rankings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def here(cls, space: SearchSpace, paths: DataPaths) -> Self:
        """That of this machine for a study.

        Raises:
            StudyError: the data is not there.
        """
        searching = {"optuna": metadata.version("optuna")} if space.searcher == OPTUNA else {}
        return cls(
            versions={**deciding_versions(), **searching},
            data=dict(_data(space, find_dataset(paths, name)) for name in space.datasets),
            rankings=_rankings(space, paths) if space.data_axes else {},
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"versions": dict(self.versions), "data": dict(self.data), "rankings": dict(self.rankings)}

    def differences(self, before: Mapping[str, Any]) -> list[str]:
        """What is not as it was, in words, one item each.

        Args:
            before: JSON of an earlier provenance.
        """
        data = _changed(before["data"], self.data)
        # Studies from before there were rankings recorded none.
        rankings = _changed(before.get("rankings", {}), self.rankings)
        return [
            *version_changes(before["versions"], self.versions),
            *(f"prepared data of {name}" for name in data),
            *(f"ranking of the training cases of {name}" for name in rankings),
        ]


def check_provenance(ledger: Ledger, now: Provenance) -> None:
    """Record what the study rests on, or compare it with what it rested on before.

    Raises:
        LedgerError: something has changed.
    """
    before = ledger.header().get(_KEY)
    if before is None:
        ledger.amend(**{_KEY: now.to_json()})
        return
    changed = now.differences(before)
    if changed:
        raise LedgerError(
            f"{ledger.root} rests on something else than what is here: {'; '.join(changed)}; "
            "restore it to continue this study, or name another --out to start a new one"
        )


def _changed(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name in sorted({*now, *then}) if now.get(name) != then.get(name)]


def _rankings(space: SearchSpace, paths: DataPaths) -> dict[str, str]:
    datasets = [find_dataset(paths, name) for name in space.datasets]
    return {f"{d.name}/fold_{fold}": load_ranking(d, fold).sha256 for d in datasets for fold in sorted(space.folds)}


def _data(space: SearchSpace, dataset: PreparedDataset) -> tuple[str, str]:
    plans = dataset.choose_plans(space.plans)
    plan = dataset.plan(plans, space.configuration)
    content = {
        "plans": plan.sha256,
        "split": {str(fold): dataset.split(fold).sha256 for fold in sorted(space.folds)},
        "files": _sizes(dataset.folder / plan.data_identifier),
    }
    return f"{dataset.name}/{plans}/{space.configuration}", sha256_of_json(content)


def _sizes(folder: Path) -> dict[str, int]:
    """Compressed files of other content have other sizes; reading them all would take minutes."""
    try:
        return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
    except OSError as error:
        raise MissingDataError(f"{folder} cannot be read ({error.strerror}); run `python -m study prepare`") from error
