"""Prediction of a slide by the networks of a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from sthggep._checks import counted, genes_present, listing, unique
from sthggep._device import resolve_device
from sthggep._encoders._frozen import FrozenEncoder
from sthggep._encoders._weights import hash_weights
from sthggep._inputs._compute import Compute
from sthggep._inputs._windows import check_window
from sthggep._keys import UNITS, UNITS_OF_ALL
from sthggep._slides._stain import normalized
from sthggep._table._gene_names import as_named
from sthggep._table._targets import Targets
from sthggep.model._forward import Ensemble, Predictions, Quantities, gather, predict_windows
from sthggep.model._history import history_to_json
from sthggep.model._networks import check_genes, describe_networks, is_closed_form
from sthggep.model._record import TrainingRecord

if TYPE_CHECKING:
    from torch import Tensor

    from sthggep._inputs._inputs import Inputs
    from sthggep._slides._slide import Slide
    from sthggep.model._calibration import Calibration


class Predictor:
    """Networks whose predictions are averaged, without files; :class:`sthggep.HGGEP` documents the parameters."""

    def __init__(
        self,
        members: Sequence[nn.Module],
        genes: Sequence[str],
        inputs: Inputs,
        *,
        preset: str = "custom",
        encoder_state: Mapping[str, Tensor] | None = None,
        training: TrainingRecord | None = None,
        history: pd.DataFrame | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.genes = [str(gene) for gene in genes]
        unique(self.genes, "The genes of a model", "Each is the name of one output.")
        self.members = nn.ModuleList(members).eval()
        self.inputs, self.preset = inputs, preset
        self.encoder_state = None if encoder_state is None else dict(encoder_state)
        self.training = TrainingRecord() if training is None else training
        self.history = pd.DataFrame() if history is None else history
        self.calibration = calibration
        for member in members:
            check_genes(int(member.config["n_genes"]), len(self.genes))  # type: ignore[index]

    @property
    def id(self) -> str:
        """Short name that changes with all that a prediction depends on, and with the record of the training."""
        # The short name of the encoder's weights stands for weights that the model does not hold
        encoder = hash_weights(self.encoder_state) if self.encoder_state else self._encoder_weights
        content = [hash_weights(self.members.state_dict()), encoder, self._record()]
        if self.calibration is not None:
            content.append(hash_weights(self.calibration.to_tensors()))
        return f"hggep-{self.preset}-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]}"

    def _record(self) -> dict[str, object]:
        """All of the model but the weights, in plain types for JSON."""
        return {
            "preset": self.preset,
            "genes": self.genes,
            "units": self.units,
            "inputs": self.inputs.to_dict(),
            "networks": [{"class": type(m).__name__, "config": m.config} for m in self.members],
            "training": self.training.to_dict(),
            "history": history_to_json(self.history),
        }

    @property
    def units(self) -> str:
        """Scale of the predictions."""
        of_genes = UNITS_OF_ALL if self.training.all_counts else UNITS
        return of_genes if self.targets is None else self.targets.units

    @property
    def targets(self) -> Targets | None:
        """Targets that are not genes, whose names are in ``genes``; ``None`` if the model predicts genes."""
        record = self.training.targets
        return None if record is None else Targets.from_dict(record, self.genes)

    @property
    def stain(self) -> dict[str, object] | None:
        """Stain to which the model normalizes slides, as ``method`` and statistics; ``None`` without normalization.

        The statistics of ``"reinhard"`` are ``mean`` and ``spread`` of L*, a* and b*; those of ``"macenko"`` are ``stains``
        (unit vectors of optical density in red, green and blue; hematoxylin, eosin) and ``strength`` (99th percentiles).
        """
        return None if self.training.stain is None or not self.inputs.stain else dict(self.training.stain)

    def normalized(self, slide: Slide) -> Slide:
        """Normalize the slide to the stain of the training slides, if the model normalizes stain.

        Parameters
        ----------
        slide
            One section.

        Returns
        -------
        The section with normalized colors, or unchanged.
        """
        return slide if slide.stain is not None else normalized(slide, self.stain)

    def on_scale(self, outputs: Tensor, columns: NDArray[np.intp] | None = None) -> Tensor:
        """Scale outputs of the networks to predictions: networks predict standardized targets, unless these are genes.

        Parameters
        ----------
        outputs
            ``(…, n_columns)``.
        columns
            Numbers of these outputs. Default: all outputs.

        Returns
        -------
        Predictions in the units of the targets.
        """
        record = self.training.targets
        if record is None:
            return outputs
        mean, std = (outputs.new_tensor(record[name]) for name in ("mean", "std"))
        index = slice(None) if columns is None else columns.tolist()
        return outputs * std[index] + mean[index]

    def __repr__(self) -> str:
        slides = self.training.all_sections
        scale = "; expression scaled by all counts of a spot" if self.training.all_counts else ""
        return (
            f"HGGEP ({self.preset}): {counted(self.genes, 'gene' if self.targets is None else 'target')} from {self.inputs}; "
            f"{self.architecture}; trained on {counted(slides, 'section')} ({listing(slides, 6)}){scale}"
        )

    @property
    def architecture(self) -> str:
        """Words for what predicts, networks with the share of the closed form, or the closed form alone."""
        return describe_networks(self.members)

    @property
    def is_closed_form(self) -> bool:
        """Whether the closed form predicts alone, without a network."""
        return is_closed_form(self.members)

    def encoder(self, *, device: str = "auto") -> FrozenEncoder | None:
        """Load the frozen encoder of the model with its weights.

        Parameters
        ----------
        device
            ``"auto"``, ``"cpu"``, ``"gpu"``, ``"cuda"`` …

        Returns
        -------
        The encoder; ``None`` if the model reads patches or ``obsm``.

        Raises
        ------
        ValueError
            The encoder is not available, or has other weights than in training.
        """
        if self.inputs.kind != "features":
            return None
        name, weights = self.inputs.encoder, self._encoder_weights
        if self.encoder_state is None and weights is None:
            msg = f"The model has no weights of its encoder {name!r}: pass `encoder_state`."
            raise ValueError(msg)
        try:
            encoder = FrozenEncoder(name, self.encoder_state, resolve_device(device))
        except ValueError as reason:
            msg = (
                f"The model reads features of the encoder {name!r}, which cannot be loaded here. {reason} "
                "Register your own encoders in each session: `sthggep.pp.register_encoder`."
            )
            raise ValueError(msg) from reason
        if self.encoder_state is None and encoder.weights != weights:
            msg = (
                f"The encoder {name!r} has other weights here ({encoder.weights}) than in the training of the model "
                f"({weights}). Register the encoder of the training: `sthggep.pp.register_encoder`."
            )
            raise ValueError(msg)
        return encoder

    @property
    def _encoder_weights(self) -> str | None:
        """Short name of the weights of the encoder in training; ``None`` without an encoder."""
        return self.training.encoder_weights if self.inputs.kind == "features" else None

    @property
    def pitch_um(self) -> float | None:
        """Microns between neighboring spots of the training sections (their median); ``None`` if unknown."""
        pitches = [pitch for pitch in self.training.pitch_um if pitch]
        return float(np.median(pitches)) if pitches else None

    @property
    def ensemble(self) -> Ensemble:
        """The networks with the inputs and the scale of the model, for a forward pass."""
        return Ensemble(self.members, self.inputs, self.pitch_um, self.on_scale)

    @property
    def has_counts(self) -> bool:
        """Whether the networks predict the distribution of counts, too."""
        return all(member.config.get("count_head") is not None for member in self.members)  # type: ignore[union-attr, operator]

    def predict_slide(self, slide: Slide, **options: Any) -> NDArray[np.float32]:
        """Predict the expression of one section.

        Parameters
        ----------
        slide
            Section to predict.
        options
            Keywords of :meth:`describe_slide`.

        Returns
        -------
        float32 (n_spots, n_genes).
        """
        return self.describe_slide(slide, **options).expression

    def describe_slide(
        self,
        slide: Slide,
        *,
        genes: Sequence[str] | None = None,
        latent: bool = False,
        counts: bool = False,
        window: int | str | None = "auto",
        encoder: FrozenEncoder | None = None,
        batch_size: int = 64,
        device: str = "auto",
        show: bool = False,
    ) -> Predictions:
        """Predict the expression of one section, and latent features and mean counts on request.

        Parameters
        ----------
        slide
            Section to predict.
        genes
            Some of the model's genes. Default: all.
        latent
            Return the fused features of each network, side by side. They are not averaged, because networks of different
            seeds have no axes in common.
        counts
            Return mean counts.
        window
            Most spots of a window; see :func:`sthggep.tl.predict`.
        encoder
            Encoder from :meth:`encoder`, loaded once for many sections. Default: the call loads it.
        batch_size
            Patches encoded at a time.
        device
            ``"auto"``, ``"cpu"``, ``"gpu"``, ``"cuda"`` …
        show
            Show progress.

        Returns
        -------
        Arrays with one row a spot; ``None`` for what is not requested.

        Raises
        ------
        KeyError
            The model does not predict a gene of ``genes``.
        ValueError
            ``counts`` is true and the networks have no count head, or ``window`` is invalid.
        """
        columns = None if genes is None else genes_present(as_named(genes, self.genes), self.genes, "the model")
        if counts and not self.has_counts:
            msg = (
                "The networks of this model have no head for counts; they predict expression only. Leave `counts` out."
            )
            raise ValueError(msg)
        check_window(self.inputs, slide, window)
        compute = Compute(resolve_device(device), batch_size, show)
        parts = predict_windows(
            self.ensemble,
            self.normalized(slide),
            encoder=encoder or self.encoder(device=str(compute.device)),
            compute=compute,
            quantities=Quantities(columns, latent, counts),
            window=window,
        )
        return gather(parts)
