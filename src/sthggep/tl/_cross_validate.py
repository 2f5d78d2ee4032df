"""Cross-validation of the model and its baselines over patients or sections, refitted in each fold."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from sthggep._arguments import checked
from sthggep._checks import counted, listing, warn_user
from sthggep._docs import document_places
from sthggep._imports import import_whole
from sthggep._log import log, on_interrupt
from sthggep._slides._patients import patient_of
from sthggep._slides._places import Places
from sthggep.tl._cross_validation._fold_store import FoldStore
from sthggep.tl._cross_validation._folds import shared_patients

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthggep._training._presets import Preset
    from sthggep.tl._cross_validation._fold_store import FoldResult
    from sthggep.tl._cross_validation._plan import FoldInputs, Plan

SAME_PATIENT = "same patient"


@checked
@document_places
def cross_validate(
    slides: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    *,
    group_key: str = "patient",
    genes: str | Sequence[str] | None = None,
    absent: str = "refuse",
    targets: str | Sequence[str] | None = None,
    preset: str | Preset = "default",
    baselines: str | Sequence[str] = ("mean", "nearest_patch", "ridge"),
    out: str | Path | None = None,
    validation: str | None = "auto",
    expression: AnnData | SpatialData | Sequence[AnnData | SpatialData] | None = None,
    obsm: str | Sequence[str] | None = None,
    encoder: str | None = None,
    size_um: float | Sequence[float] | None = None,
    encoding: str | None = None,
    flips: bool | None = None,
    stain: str | None = None,
    max_epochs: int | None = None,
    learning_rate: float | None = None,
    n_members: int | None = None,
    interval: float | Sequence[float] | None = None,
    trust: bool = False,
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
    """Hold out each patient (or section) in turn, train on the others, and score the predictions.

    Each fold chooses the panel, trains the model with its early stopping, and fits the baselines on the other groups
    alone. The counts of the held-out sections serve only to score the predictions. Image features depend on no counts,
    so they are computed once for all folds, or with ``stain`` once for each fold, since the reference stain comes from
    its training sections.

    Parameters
    ----------
    slides
        Several sections with H&E images and raw counts, in one object or many. The function does not change them.
    group_key
        Column of ``obs`` with the groups to hold out; it has one value in each section. ``"section"`` holds out
        each section by its name. That is an easier task if a patient has several sections, and the function warns.
    genes
        The panel. Default: the panel that :func:`sthggep.pp.gene_panel` chooses from each fold's training sections,
        without the genes that the held-out sections lack. ``"union"``: chosen from the genes of any training section; each
        section teaches, and is scored on, the genes that it holds. See :func:`sthggep.tl.fit`.
    absent
        ``"mask"``: sections may lack genes of a list in ``genes``, too. Default: they are refused.
    targets
        What to predict instead of genes: a key of ``obsm`` or columns of ``obs``; see :func:`sthggep.tl.fit`. Scores
        are on the scale of the targets; there is no noise ceiling, since only counts have one.
    preset
        As for :func:`sthggep.tl.fit`.
    baselines
        Any of ``"mean"`` (each gene's mean over the training spots), ``"nearest_patch"`` (expression of the training
        spot with the nearest features) and ``"ridge"`` (ridge regression; its penalty is chosen on held-out training
        sections, or on blocks of tissue if there is only one). The latter two read the model's features, also those of
        ``encoder`` or ``obsm``; with ``preset="paper"`` they read those of the default preset.
    out
        Folder for finished folds, from which the same call with the same data resumes after an interruption. Default:
        folds are not stored.
    validation
        What to hold out of the training sections for early stopping: ``"auto"``, ``"sections"``, ``"patients"``,
        ``"blocks"`` or ``None``; see :func:`sthggep.tl.fit`.
    expression
        Further sections with raw counts, no image needed, from which the model learns gene programs; see
        :func:`sthggep.tl.fit`. Each fold leaves out those of its held-out group: of the same ``obs[group_key]``, which
        these sections need too, or with ``group_key="section"`` of the same name. Neither the baselines nor the panel
        use them.
    obsm, encoder, size_um, encoding, flips, stain, max_epochs, learning_rate, n_members, weights
        As for :func:`sthggep.tl.fit`.
    interval
        Also score the model's intervals of this level, such as 0.9, or of several; see :func:`sthggep.tl.predict` and
        :func:`sthggep.pl.calibration`. Default: none.
    trust
        Also compare the verdicts of :func:`sthggep.tl.trust` with what the held-out sections show.
    layer
        Layer of the raw counts; only this layer is read. Default: the first of ``X``, ``layers["counts"]``,
        ``layers["raw_counts"]`` and ``raw`` that holds whole non-negative numbers of all panel genes.
    {places}
    window
        Most spots of a training sample; see :func:`sthggep.tl.fit`. Features of sections in several windows wait in a
        temporary folder. ``"nearest_patch"`` and ``"ridge"`` need all features in memory: for very large sections pass
        ``baselines=["mean"]``.
    batch_size
        Patches encoded at a time.
    trainer_kwargs
        Options for Lightning's ``Trainer``.
    device
        ``"cpu"``, ``"gpu"``, ``"cuda"``, ``"mps"`` … Default: ``"auto"``, a GPU if there is one.
    seed
        The same seed gives the same table.
    show_progress_bar
        Show progress.

    Returns
    -------
    A DataFrame with a row for each ``fold``, ``group``, ``section``, ``method``, ``metric`` and
    ``gene``, and its ``value``. ``leak`` is ``"same patient"`` if the fold was trained on other sections of the
    patient, else empty. ``method`` is ``"hggep"`` or a baseline. ``metric`` is ``"pearson"``, ``"spearman"`` or
    ``"rmse"``, within the section, on ``log10(1 + counts per 10,000 of the panel)``. The noise ceiling of each gene
    (see :func:`sthggep.tl.evaluate`) is a row with ``"ceiling"`` as ``method`` and ``metric``. With ``interval`` there
    are further rows of the model: ``"coverage"`` (share of the measurements inside), ``"width"`` and
    ``"interval_score"`` (Winkler's, lower is better). Their level is in a further column, ``level``, which is NaN in the
    other rows. With ``trust`` there are ``"trusted"`` (1 for the verdicts *spot* and *region*, 0 for *not predicted*, NaN
    for *cannot be judged*), ``"correlated"`` (1 if the section shows the correlation, at a false discovery rate of 5 %, else
    0) and ``"novelty"`` (mean over the section's spots, the same for all genes). ``attrs`` holds
    ``parameters``, ``folds`` (``group``, ``sections``, numbers ``n_train`` of training and ``n_expression`` of further
    sections, ``n_genes``, ``seconds``) and ``leaks``.

    Raises
    ------
    KeyError, ValueError
        Invalid input, fewer than two groups, the same tissue on both sides of a fold (judged by name, image, counts
        and spot positions), or an ``out`` of other data or parameters; all refused before training.
    ImportError
        The package of the encoder is not installed.
    FileNotFoundError
        The weights do not exist or cannot be downloaded.
    FileExistsError
        ``out`` holds something else.

    See Also
    --------
    sthggep.pl.calibration : Draw coverage and width of the intervals.
    sthggep.pl.cross_validation : Draw the scores.

    Notes
    -----
    A constant prediction, such as the mean, has no correlation. By convention it counts as 0 where the measurement
    varies, and is NaN where the measurement is constant. Spots without counts in the panel are scored, but neither the
    model nor a baseline is trained on them.

    Examples
    --------
    >>> results = sthggep.tl.cross_validate(slides, group_key="patient", out="folds")

    Means to report, over genes within each section:

    >>> pearson = results[results["metric"].isin(["pearson", "ceiling"])]
    >>> pearson.pivot_table(index="method", columns="section", values="value")
    """
    import_whole("torch", "lightning", "torch_geometric")
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
    choices = Choices(obsm, encoder, size_um, encoding, flips, stain, max_epochs, learning_rate, n_members)
    options = Options.of(
        group_key, genes, preset, choices, baselines, training, targets, interval, trust=trust, absent=absent
    )
    plan = make_plan(slides, options, places, expression=expression)
    leaks = shared_patients(plan.slides, plan.folds, plan.extra_sections)
    if leaks:
        warn_user(_same_patient_warning(leaks, plan))
    return _table(_run_folds(plan, out), plan, leaks)


def _run_folds(plan: Plan, out: str | Path | None) -> list[FoldResult]:
    """Scores and record of every fold: read from ``out`` if it is finished, else computed and stored."""
    with FoldStore.open(out, plan.record()) as store, tempfile.TemporaryDirectory(prefix="sthggep-") as folder:
        results = {fold.number: result for fold in plan.folds if (result := store.read(fold.number)) is not None}
        panels = {fold.number: plan.panel(fold) for fold in plan.folds if fold.number not in results}
        if results:
            log.info("%d of %d folds are finished already in %s.", len(results), len(plan.folds), out)
        with on_interrupt(lambda: _what_is_stored(out, len(results), len(plan.folds))):
            _run_missing(plan, panels, store, results, Path(folder))
    return [results[fold.number] for fold in plan.folds]


def _run_missing(
    plan: Plan, panels: Mapping[int, list[str]], store: FoldStore, results: dict[int, FoldResult], folder: Path
) -> None:
    """Compute and store the folds that have a panel."""
    from sthggep.tl._cross_validation._run_fold import run_fold

    inputs: FoldInputs | None = None
    for fold in plan.folds:
        if fold.number not in panels:
            continue
        start = time.perf_counter()
        if inputs is None or plan.inputs_differ:
            # Delete the features of the earlier fold first
            rmtree(folder)
            inputs = plan.read_inputs(folder, fold)
        scores = run_fold(plan, inputs, fold, panels[fold.number])
        record: dict[str, object] = {
            "fold": fold.number,
            "group": fold.group,
            "sections": [plan.slides[i].name for i in fold.test],
            "n_train": len(fold.train),
            "n_expression": len(fold.extra),
            "n_genes": len(panels[fold.number]),
            "seconds": round(time.perf_counter() - start, 2),
        }
        store.write(fold.number, scores, record)
        results[fold.number] = scores, record
        text = "Fold %d of %d (%s held out): PCC %s; %.0f s."
        log.info(text, fold.number + 1, len(plan.folds), fold.group, _pearson(scores), record["seconds"])


def _what_is_stored(out: str | Path | None, n_finished: int, n_folds: int) -> str:
    """What an interrupted cross-validation leaves, in words."""
    if out is None:
        return f"{n_finished} of {n_folds} finished folds are lost: with `out=` the same call would resume."
    return f"{n_finished} of {n_folds} folds are in {str(out)!r}; the same call resumes there."


def _pearson(scores: pd.DataFrame) -> str:
    """Mean correlation of each method, as text."""
    means = scores[scores["metric"] == "pearson"].groupby("method", sort=False)["value"].mean()
    return ", ".join(f"{method} {mean:.3f}" for method, mean in means.items())


def _table(folds: Sequence[FoldResult], plan: Plan, leaks: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The scores of all folds in one table, with their records."""
    import pandas as pd

    results = pd.concat([scores for scores, _ in folds], ignore_index=True)
    results["leak"] = [SAME_PATIENT if section in leaks else "" for section in results["section"]]
    results.attrs = {
        "parameters": plan.options.parameters(),
        "folds": [record for _, record in folds],
        "leaks": {section: list(others) for section, others in leaks.items()},
    }
    return results


def _same_patient_warning(leaks: Mapping[str, Sequence[str]], plan: Plan) -> str:
    """The warning that folds are trained on other sections of the patients that they predict."""
    patients = {slide.name: patient_of(slide) for slide in plan.slides}
    return (
        f"The model is trained on other sections of the same patient for {len(leaks)} of {counted(plan.slides, 'section')} "
        f"({listing(f'{section} (patient {patients[section]})' for section in leaks)}). A new patient is harder to predict: these "
        "sections are easier, and the column `leak` marks their scores. Pass `group_key='patient'` to hold out whole patients."
    )
