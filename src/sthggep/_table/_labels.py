"""Labels of spots, and how well clusters agree with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sthggep._checks import has_key

if TYPE_CHECKING:
    from sthggep._slides._slide import Slide


def read_labels(slide: Slide, labels_key: str) -> pd.Series:
    """Read the labels of a section's spots as text; a spot without a label gets a missing value."""
    obs = slide.adata.obs.iloc[slide.rows]
    column = pd.Series(has_key(obs, labels_key, "obs", "Pass the column of labels as `labels_key=`."))
    labels = column.astype(object).where(column.notna(), None).map(str, na_action="ignore")
    if not labels.notna().any():
        msg = f"obs[{labels_key!r}] holds no label for any of the {len(labels)} spots of section {slide.name!r}."
        raise ValueError(msg)
    return labels


def ari_nmi(labels: pd.Series, clusters: pd.Series) -> tuple[float, float]:
    """Compute the adjusted Rand index and the normalized mutual information over the spots that have both labels."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    in_both = labels.notna().to_numpy() & clusters.notna().to_numpy()
    a, b = labels[in_both].astype(str), clusters[in_both].astype(str)
    return float(adjusted_rand_score(a, b)), float(normalized_mutual_info_score(a, b))
