"""Networks, the genes they predict and what they look at: what they say of a slide."""

from __future__ import annotations

import hashlib
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
from sthggep._keys import UNITS
from sthggep._slides._stain import normalized
from sthggep._table._targets import Targets
from sthggep.model._forward import Ensemble, Predicted, Quantities, gather, predict_windows
from sthggep.model._record import TrainingRecord

if TYPE_CHECKING:
    from torch import Tensor

    from sthggep._inputs._inputs import Inputs
    from sthggep._slides._slide import Slide


class Predictor:
    """Networks whose predictions are averaged; :class:`sthggep.HGGEP` says what they are made of, and keeps them."""

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
    ) -> None:
        self.genes = [str(gene) for gene in genes]
        unique(self.genes, "The genes of a model", "Each stands for one output.")
        self.members = nn.ModuleList(members).eval()
        self.inputs, self.preset = inputs, preset
        self.encoder_state = None if encoder_state is None else dict(encoder_state)
        self.training = TrainingRecord() if training is None else training
        self.history = pd.DataFrame() if history is None else history
        for member in members:
            _check_genes(member, len(self.genes))

    @property
    def id(self) -> str:
        """Short name that changes with the weights and with the genes they stand for."""
        # Weights of the encoder that are not held here are known by their own short name
        encoder = hash_weights(self.encoder_state or {}) if self.encoder_state else self._encoder_weights
        content = [hash_weights(self.members.state_dict()), encoder or hash_weights({}), *self.genes]
        content += [repr(value) for value in (self.training.targets, self.training.stain) if value is not None]
        return f"hggep-{self.preset}-{hashlib.sha256(repr(content).encode()).hexdigest()[:12]}"

    @property
    def units(self) -> str:
        """Scale of the predictions."""
        return UNITS if self.targets is None else self.targets.units

    @property
    def targets(self) -> Targets | None:
        """What is predicted where that is no genes; ``genes`` then holds their names."""
        record = self.training.targets
        return None if record is None else Targets.from_dict(record, self.genes)

    @property
    def stain(self) -> dict[str, Any] | None:
        """Stain that slides are brought to before they are looked at, ``method`` and statistics; ``None`` where they are not.

        Of ``"reinhard"``, ``mean`` and ``spread`` of L*, a* and b*; of ``"macenko"``, ``stains`` (unit vectors of optical density
        in red, green and blue; hematoxylin, eosin) and their ``strength`` (99th percentiles).
        """
        return None if self.training.stain is None or not self.inputs.stain else dict(self.training.stain)

    def normalized(self, slide: Slide) -> Slide:
        """The slide as this model looks at it: in the stain of its training slides, where it normalizes stain.

        Parameters
        ----------
        slide
            One section.

        Returns
        -------
        The section, whose patches come in those colors.
        """
        return slide if slide.stain is not None else normalized(slide, self.stain)

    def on_scale(self, outputs: Tensor, columns: NDArray[np.intp] | None = None) -> Tensor:
        """What the networks put out, on the scale of the predictions: targets that are no genes are learned standardized.

        Parameters
        ----------
        outputs
            ``(…, n_columns)``.
        columns
            Which outputs of the networks these are; ``None`` for all.

        Returns
        -------
        The same on the targets' own scale.
        """
        record = self.training.targets
        if record is None:
            return outputs
        mean, std = (outputs.new_tensor(record[name]) for name in ("mean", "std"))
        chosen = slice(None) if columns is None else columns.tolist()
        return outputs * std[chosen] + mean[chosen]

    def __repr__(self) -> str:
        weights = sum(parameter.numel() for parameter in self.members.parameters())
        slides = self.training.all_sections
        return (
            f"HGGEP ({self.preset}): {counted(self.genes, 'gene' if self.targets is None else 'target')} from {self.inputs}; "
            f"{counted(len(self.members), 'network')}{self._share}, {weights / 1e6:.1f} M weights; "
            f"trained on {counted(slides, 'section')} ({listing(slides, 6)})"
        )

    @property
    def _share(self) -> str:
        """How much of the prediction is the networks', in words, where a linear shortcut has the rest."""
        shares = [float(member.blend) for member in self.members if hasattr(member, "blend")]  # type: ignore[arg-type]
        return f" (share {float(np.mean(shares)):g}, the linear shortcut has the rest)" if shares else ""

    def encoder(self, *, device: str = "auto") -> FrozenEncoder | None:
        """The frozen encoder that this model looks through, with its weights.

        Parameters
        ----------
        device
            ``"auto"``, ``"cpu"``, ``"cuda"`` …

        Returns
        -------
        The encoder; ``None`` where patches or ``obsm`` are looked at.

        Raises
        ------
        ValueError
            It cannot be made here, or has other weights than the model was trained on.
        """
        if self.inputs.kind != "features":
            return None
        name, wanted = self.inputs.encoder, self._encoder_weights
        if self.encoder_state is None and wanted is None:
            msg = f"The model has no weights of its encoder {name!r}: pass `encoder_state`."
            raise ValueError(msg)
        try:
            found = FrozenEncoder(name, self.encoder_state, resolve_device(device))
        except ValueError as reason:
            msg = (
                f"The model looks at features of the encoder {name!r}, which cannot be made here. {reason} "
                "An encoder of your own is registered anew in each session: `sthggep.pp.register_encoder`."
            )
            raise ValueError(msg) from reason
        if self.encoder_state is None and found.weights != wanted:
            msg = (
                f"The encoder {name!r} has other weights here ({found.weights}) than the model was trained on ({wanted}). "
                "Register the one that it was trained on."
            )
            raise ValueError(msg)
        return found

    @property
    def _encoder_weights(self) -> str | None:
        """Short name of the weights of the encoder that it was trained on; ``None`` where it has none."""
        return self.training.encoder_weights if self.inputs.kind == "features" else None

    @property
    def pitch_um(self) -> float | None:
        """Microns between neighboring spots of the training sections (their median); ``None`` where it is not known."""
        known = [pitch for pitch in self.training.pitch_um if pitch]
        return float(np.median(known)) if known else None

    @property
    def ensemble(self) -> Ensemble:
        """The networks, and what a forward pass needs to know of the model."""
        return Ensemble(self.members, self.inputs, self.pitch_um, self.on_scale)

    @property
    def has_counts(self) -> bool:
        """Whether the networks say how counts are distributed, beside the expression."""
        return all(member.config.get("count_head") is not None for member in self.members)  # type: ignore[union-attr, operator]

    def predict_slide(self, slide: Slide, **options: Any) -> NDArray[np.float32]:
        """Expression of one section.

        Parameters
        ----------
        slide
            Section to be predicted.
        options
            As for :meth:`describe_slide`.

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
    ) -> Predicted:
        """Expression of one section, with the latent features behind it and the mean counts where asked for.

        Parameters
        ----------
        slide
            Section to be predicted.
        genes
            Some of the model's genes; ``None`` takes all.
        latent
            Return the fused features of each network, side by side. Their mean would mean nothing: networks trained from
            different seeds have no axes in common. Distances between spots add up over the networks.
        counts
            Return mean counts.
        window
            Spots predicted at a time; see :func:`sthggep.tl.predict`.
        encoder
            What :meth:`encoder` gave, to make it once for many sections; ``None`` makes it.
        batch_size
            Patches encoded at a time.
        device
            ``"auto"``, ``"cpu"``, ``"cuda"`` …
        show
            Show progress.

        Returns
        -------
        Arrays, a row a spot.

        Raises
        ------
        KeyError
            A gene is not predicted by the model.
        ValueError
            Counts are asked for, and the networks do not predict them; or ``window`` is none.
        """
        columns = None if genes is None else genes_present(genes, self.genes, "the model")
        if counts and not self.has_counts:
            msg = "The networks of this model have no head for counts; they predict expression only."
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


def _check_genes(member: nn.Module, n_genes: int) -> None:
    found = member.config["n_genes"]  # type: ignore[index]
    if found != n_genes:
        msg = f"The network predicts {counted(found, 'gene')}, found {counted(n_genes, 'name')}. Pass the panel it was trained on, in order."
        raise ValueError(msg)
