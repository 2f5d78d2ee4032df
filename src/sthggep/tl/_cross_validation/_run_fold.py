"""One fold: train on its training sections, predict the held-out ones, and score all methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from sthggep._table._all_counts import AllCounts
from sthggep._table._evidence import UNLIKE
from sthggep._table._scores import INTERVAL_METRICS, noise_ceiling, score, score_intervals
from sthggep._table._spatial_null import compare_maps, false_discovery_rates
from sthggep._table._verdicts import TRUSTED, VERDICTS, Thresholds, judge
from sthggep._training._task import TrainingTask
from sthggep._training._train import train
from sthggep.model._calibration import Interval, add_interval
from sthggep.model._forward import Predictions, Quantities, gather, predict_window, predict_windows
from sthggep.tl._cross_validation._baselines import BaselineSample, FeatureView, predict_by
from sthggep.tl._request import check_fit

if TYPE_CHECKING:
    from sthggep._inputs._section import Scale
    from sthggep._slides._slide import Slide
    from sthggep.model import HGGEP
    from sthggep.tl._cross_validation._folds import Fold
    from sthggep.tl._cross_validation._plan import FoldInputs, Plan

Floats = NDArray[np.float32]
MODEL, CEILING = "hggep", "ceiling"
METRICS = ("pearson", "spearman", "rmse")


def run_fold(plan: Plan, inputs: FoldInputs, fold: Fold, panel: Sequence[str]) -> pd.DataFrame:
    """Score the fold's held-out sections; their counts are read after all methods have predicted."""
    scale = plan.scale(fold, panel)
    model = _train_model(plan, inputs, fold, panel, scale)
    by_model = [_predict_section(plan, inputs, model, i) for i in fold.test]
    predicted = {MODEL: [part.expression for part in by_model]}
    predicted |= _by_baselines(plan, inputs.views, fold, panel, scale)
    seed = plan.options.training.compute.seed
    parts = []
    for position, i in enumerate(fold.test):
        measured, raw = plan.measured(i, panel, scale)
        # A section is scored on the genes that it holds
        held = np.flatnonzero(~np.isnan(measured).any(axis=0))
        genes, measured, raw = (
            [panel[int(gene)] for gene in held],
            measured[:, held],
            None if raw is None else raw if len(held) == len(panel) else raw[:, held],
        )
        by_method = {name: sections[position][:, held] for name, sections in predicted.items()}
        scores = score_section(by_method, measured, raw, genes, seed)
        for level in plan.options.intervals:
            table = _long(_interval_scores(model, by_model[position], measured, level, held), MODEL, genes)
            scores = pd.concat([scores, table.assign(level=level)], ignore_index=True)
        if plan.options.trust:
            table = _long(_trust_scores(model, by_model[position], measured, plan.slides[i], held), MODEL, genes)
            scores = pd.concat([scores, table], ignore_index=True)
        scores.insert(0, "section", plan.slides[i].name)
        parts.append(scores)
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "group", fold.group)
    table.insert(0, "fold", fold.number)
    return table


def _train_model(plan: Plan, inputs: FoldInputs, fold: Fold, panel: Sequence[str], scale: Scale) -> HGGEP:
    """Train a model on the fold's training sections, which can predict the held-out ones."""
    options = plan.options
    task = TrainingTask(
        [plan.slides[i] for i in fold.train],
        panel,
        options.preset_name,
        options.preset,
        options.training,
        extra_sections=[plan.extra_sections[i] for i in fold.extra],
        targets=plan.targets,
        mixed=plan.options.mixed and plan.targets is None,
        all_counts=isinstance(scale, AllCounts),
    )
    model = train(task, inputs.prepared.subset(fold.train))
    for i in fold.test:
        check_fit(model, plan.slides[i])
    return model


def _predict_section(plan: Plan, inputs: FoldInputs, model: HGGEP, i: int) -> Predictions:
    """Predict a held-out section."""
    windows, training = inputs.prepared.windows[i], plan.options.training
    quantities = Quantities(novelty=None if model.calibration is None else model.calibration.novelty)
    if len(windows) == 1:
        return predict_window(model.ensemble, windows[0], training.compute.device, quantities)
    # In several windows, each network needs the section's statistics on its own scale
    parts = predict_windows(
        model.ensemble,
        model.normalized(plan.slides[i]),
        encoder=inputs.prepared.encoder,
        compute=training.compute,
        quantities=quantities,
        window=training.window,
        block_folder=inputs.block_folder,
    )
    return gather(parts)


def _by_baselines(
    plan: Plan, views: Sequence[FeatureView], fold: Fold, panel: Sequence[str], scale: Scale
) -> dict[str, list[Floats]]:
    """Fit the baselines on the fold's training sections and predict the held-out ones."""
    names = plan.options.baselines
    train = []
    for i in fold.train if names else ():
        values, raw = plan.measured(i, panel, scale)
        filled = np.ones(len(values), dtype=bool) if raw is None else raw.sum(axis=1) > 0
        train.append(BaselineSample(views[i], values, filled, plan.slides[i].xy))
    return {name: predict_by(name, train, [views[i] for i in fold.test]) for name in names}


def score_section(
    predicted: Mapping[str, Floats], measured: Floats, raw: Floats | None, panel: Sequence[str], seed: int
) -> pd.DataFrame:
    """Scores of one section: a row for each method, metric and gene, and with counts one for each noise ceiling."""
    tables = [_long(_scores(values, measured), name, panel) for name, values in predicted.items()]
    if raw is None:
        return pd.concat(tables, ignore_index=True)
    ceiling = noise_ceiling(raw, np.random.default_rng(seed))[: len(panel)]
    tables.append(_long(pd.DataFrame({CEILING: ceiling}), CEILING, panel))
    return pd.concat(tables, ignore_index=True)


def _scores(predicted: Floats, measured: Floats) -> pd.DataFrame:
    """Scores of one method; a constant prediction of a gene that varies has a correlation of 0, not NaN."""
    scores = score(predicted, measured)[list(METRICS)]
    constant = (np.ptp(predicted, axis=0) == 0) & (np.ptp(measured, axis=0) > 0)
    scores.loc[constant, ["pearson", "spearman"]] = 0.0
    return scores


def _interval_scores(
    model: HGGEP, part: Predictions, measured: Floats, level: float, genes: NDArray[np.intp]
) -> pd.DataFrame:
    """Scores of the model's intervals of these genes; all are NaN for a model that gives none."""
    interval, of_counts = Interval(level, "measurement"), model.targets is None
    part = part._replace(expression=part.expression[:, genes])
    part = add_interval(part, model.calibration, interval, genes, of_counts=of_counts)
    if part.lower is None or part.upper is None:
        return pd.DataFrame(np.nan, index=range(measured.shape[1]), columns=list(INTERVAL_METRICS))
    return score_intervals(part.lower, part.upper, measured, level)


def _trust_scores(
    model: HGGEP, part: Predictions, measured: Floats, slide: Slide, genes: NDArray[np.intp]
) -> pd.DataFrame:
    """Verdicts of a section on these genes, and whether its measurements agree; NaN of a model that held nothing out."""
    evidence = None if model.calibration is None else model.calibration.evidence
    novelty = np.nan if part.novelty is None else float(np.nanmean(part.novelty))
    trusted = np.full(measured.shape[1], np.nan)
    if evidence is not None:
        verdict = judge(evidence, model.genes, Thresholds(), unlike=novelty > UNLIKE)["verdict"].iloc[genes]
        trusted = np.select([verdict.isin(TRUSTED), verdict == VERDICTS[2]], [1.0, 0.0], np.nan)
    z = compare_maps(slide.xy, part.expression[:, genes], measured, seed=1).z
    correlated = false_discovery_rates(norm.sf(z)) < Thresholds().fdr
    return pd.DataFrame({"trusted": trusted, "correlated": correlated.astype(float), "novelty": novelty})


def _long(scores: pd.DataFrame, method: str, panel: Sequence[str]) -> pd.DataFrame:
    """Scores with a row for each metric and gene."""
    long = scores.assign(gene=list(panel)).melt(id_vars="gene", var_name="metric", value_name="value")
    long.insert(0, "method", method)
    return long
