"""Held-out patients or sections: the model beside its baselines, all refitted in each fold."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from sthggep._checks import counted, listing
from sthggep._docs import document_places
from sthggep._log import log
from sthggep._slides._places import Places
from sthggep.tl._cross_validation._fold_store import FoldStore
from sthggep.tl._cross_validation._folds import patient_of, shared_patients

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._training._presets import Preset
    from sthggep.tl._cross_validation._plan import FoldInputs, Plan

SAME_PATIENT = "same patient"


@document_places
def cross_validate(
    slides: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    group_key: str = "patient",
    genes: Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    preset: str | Preset = "default",
    baselines: Sequence[str] = ("mean", "nearest_patch", "ridge"),
    out: str | Path | None = None,
    validation: str | None = "auto",
    expression: AnnData | SpatialData | Sequence[AnnData | SpatialData] | None = None,
    obsm: str | Sequence[str] | None = None,
    encoder: str | None = None,
    size_um: float | Sequence[float] | None = None,
    stain: str | None = None,
    max_epochs: int | None = None,
    learning_rate: float | None = None,
    n_members: int | None = None,
    weights: str | Path | None = None,
    layer: str | None = None,
    image_key: str | None = None,
    table_key: str = "table",
    shapes_key: str | None = None,
    spatial_key: str = "spatial",
    coordinate_system: str | None = None,
    library_key: str | None = None,
    mpp: float | None = None,
    window: int | str | None = "auto",
    batch_size: int = 64,
    trainer_kwargs: dict[str, Any] | None = None,
    device: str = "auto",
    seed: int = 0,
    show_progress_bar: bool = True,
) -> pd.DataFrame:
    """Hold out one patient (or section) after the other, and score what is predicted there.

    In each fold the panel, the normalization, the model with its early stopping, and the baselines are fitted anew on
    the other groups; the counts of the held-out sections are read only to score what was predicted. Image features are
    frozen and know no counts: they are computed once for all folds, or with ``stain`` once for each, since what it brings
    colors to is fitted anew, too.

    Parameters
    ----------
    slides
        Several sections with H&E and raw counts, in one object or many. They are not changed.
    group_key
        Column of ``obs`` whose values are held out one by one; it has one value in a section. ``"section"`` leaves out
        each section by its name: the easier question where a patient has several, and a warning says so.
    genes
        The panel; ``None`` takes :func:`sthggep.pp.gene_panel` of each fold's training sections, less genes that the
        held-out sections do not list.
    targets
        What is predicted instead of genes, a key of ``obsm`` or columns of ``obs``; see :func:`sthggep.tl.fit`. Scored on
        their own scale, without a ceiling, which is known of counts alone.
    preset
        See :func:`sthggep.tl.fit`.
    baselines
        Which of ``"mean"`` (each gene's mean over the training spots), ``"nearest_patch"`` (expression of the training
        spot that looks most alike) and ``"ridge"`` (linear, its penalty chosen on training sections left out, or on blocks
        of tissue where there is only one) stand beside the model. The latter two look at the model's own features, of
        ``encoder`` or ``obsm`` too; with ``preset="paper"`` at those of the default preset.
    out
        Folder to keep finished folds in. The same call with the same data goes on after an interruption.
    validation
        What is held out of the training sections to stop early: ``"auto"``, ``"sections"``, ``"blocks"`` or ``None``; see
        :func:`sthggep.tl.fit`.
    expression
        Further sections with raw counts, no image needed, that teach gene programs; see :func:`sthggep.tl.fit`. Each fold
        leaves out those of its held-out group: of the same ``obs[group_key]``, which they must have too, or with
        ``group_key="section"`` of the same name. The baselines do not look at them, and neither does the panel.
    obsm, encoder, size_um, stain, max_epochs, learning_rate, n_members, weights
        See :func:`sthggep.tl.fit`.
    layer
        Layer of the raw counts; ``None`` reads ``X``.
    {places}
    window
        Most spots of a training sample; see :func:`sthggep.tl.fit`. Features of such sections wait in
        a temporary folder. ``"nearest_patch"`` and ``"ridge"`` need them in memory at once: of very large sections leave
        these out by ``baselines=["mean"]``.
    batch_size
        Patches encoded at a time.
    trainer_kwargs
        Options for Lightning's ``Trainer``.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` …
    seed
        The same seed gives the same table.
    show_progress_bar
        Show progress.

    Returns
    -------
    A row for each ``fold``, ``group``, ``section``, ``method``, ``metric`` and ``gene``, with its ``value``; ``leak`` is
    ``"same patient"`` where other sections of the patient were trained on, else empty. ``method`` is ``"hggep"`` or a
    baseline, ``metric`` is ``"pearson"``, ``"spearman"`` or ``"rmse"``, within the section, on
    ``log10(1 + counts per 10,000 of the panel)``. Each gene's noise ceiling (see :func:`sthggep.tl.evaluate`) is a row of
    its own, ``method`` and ``metric`` both ``"ceiling"``. ``attrs`` holds ``parameters``, ``folds`` (``group``,
    ``sections``, ``n_train`` sections, ``n_expression`` further ones, ``n_genes``, ``seconds``) and ``leaks``.

    Raises
    ------
    KeyError, ValueError
        Bad input, fewer than two groups, the same tissue on both sides of a fold (name, image, counts or spot positions), or
        an ``out`` of other data or parameters; all refused before anything is trained.
    ImportError
        The encoder is of a package that is not installed.
    FileNotFoundError
        Weights that cannot be found or downloaded.
    FileExistsError
        ``out`` holds something else.

    See Also
    --------
    sthggep.pl.cross_validation : the figure.

    Notes
    -----
    A constant prediction, such as the mean, has no correlation; by convention it is 0 where the measurement varies, and NaN
    where the measurement is constant. Spots without counts in the panel are scored, but neither the model nor a baseline
    learns from them. The means that belong in a paper are over genes, then over sections:

    >>> pearson = results[results["metric"].isin(["pearson", "ceiling"])]
    >>> pearson.pivot_table(index="method", columns="section", values="value")
    """
    from sthggep._device import resolve_device
    from sthggep._inputs._compute import Compute
    from sthggep._training._choices import Choices
    from sthggep._training._task import TrainingOptions
    from sthggep.tl._cross_validation._options import Options
    from sthggep.tl._cross_validation._plan import make_plan

    places = Places(
        image_key=image_key,
        table_key=table_key,
        shapes_key=shapes_key,
        spatial_key=spatial_key,
        coordinate_system=coordinate_system,
        library_key=library_key,
        mpp=mpp,
    )
    compute = Compute(resolve_device(device), batch_size, show_progress_bar, seed)
    training = TrainingOptions(compute, validation, weights, layer, window, trainer_kwargs)
    choices = Choices(obsm, encoder, size_um, stain, max_epochs, learning_rate, n_members)
    options = Options.of(group_key, genes, preset, choices, baselines, training, targets)
    plan = make_plan(slides, options, places, expression=expression)
    leaks = shared_patients(plan.slides, plan.folds, plan.extra_sections)
    if leaks:
        warnings.warn(_of_same_patient(leaks, plan), UserWarning, stacklevel=2)
    return _table(_all_folds(plan, out), plan, leaks)


def _all_folds(plan: Plan, out: str | Path | None) -> list[tuple[pd.DataFrame, dict[str, Any]]]:
    """Scores and record of every fold: read where it is finished already, else made and kept."""
    from sthggep.tl._cross_validation._run_fold import run_fold

    store = FoldStore(out, plan.record())
    found = {fold.number: kept for fold in plan.folds if (kept := store.read(fold.number)) is not None}
    panels = {fold.number: plan.panel(fold) for fold in plan.folds if fold.number not in found}
    if found:
        log.info("%d of %d folds are finished already in %s.", len(found), len(plan.folds), out)
    inputs: FoldInputs | None = None
    with tempfile.TemporaryDirectory(prefix="sthggep-") as folder:
        for fold in plan.folds:
            if fold.number in found:
                continue
            start = time.perf_counter()
            if inputs is None or plan.reads_anew:
                # Features of an earlier fold are deleted as soon as they are not needed
                rmtree(folder)
                inputs = plan.read_inputs(Path(folder), fold)
            scores = run_fold(plan, inputs, fold, panels[fold.number])
            record = {
                "fold": fold.number,
                "group": fold.group,
                "sections": [plan.slides[i].name for i in fold.test],
                "n_train": len(fold.train),
                "n_expression": len(fold.extra),
                "n_genes": len(panels[fold.number]),
                "seconds": round(time.perf_counter() - start, 2),
            }
            store.write(fold.number, scores, record)
            found[fold.number] = scores, record
            text = "Fold %d of %d (%s held out): PCC %s; %.0f s."
            log.info(text, fold.number + 1, len(plan.folds), fold.group, _pearson(scores), record["seconds"])
    return [found[fold.number] for fold in plan.folds]


def _pearson(scores: pd.DataFrame) -> str:
    """Mean correlation of each method, in words."""
    means = scores[scores["metric"] == "pearson"].groupby("method", sort=False)["value"].mean()
    return ", ".join(f"{method} {mean:.3f}" for method, mean in means.items())


def _table(
    folds: list[tuple[pd.DataFrame, dict[str, Any]]], plan: Plan, leaks: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """All folds below each other, with their records."""
    import pandas as pd

    results = pd.concat([scores for scores, _ in folds], ignore_index=True)
    results["leak"] = results["section"].map(dict.fromkeys(leaks, SAME_PATIENT)).fillna("")
    results.attrs = {
        "parameters": plan.options.parameters(),
        "folds": [record for _, record in folds],
        "leaks": {section: list(others) for section, others in leaks.items()},
    }
    return results


def _of_same_patient(leaks: Mapping[str, Sequence[str]], plan: Plan) -> str:
    patients = {slide.name: patient_of(slide) for slide in plan.slides}
    return (
        f"Predicted after training on others of their patient: {len(leaks)} of {counted(plan.slides, 'section')} "
        f"({listing(f'{section} (patient {patients[section]})' for section in leaks)}). That is easier than a new patient; "
        "the column `leak` marks their scores. Pass `group_key='patient'` to hold out whole patients."
    )
